# SPDX-License-Identifier: BSD-2-Clause
# Unit tests of the command: they link its objects, all but main().

LOADER_A := $(B)/libloader.a
LOADER_TESTS := $(filter $(B)/tests/unit/test_loader_%,$(UNIT_BIN))

$(LOADER_A): $(call obj,$(filter-out loader/main.c,$(LOADER_SRC)))
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^
$(LOADER_TESTS): $(LOADER_A)
$(LOADER_TESTS): GN_LIBS := $(LOADER_A) $(LIB_A) $(GN_LIBS)
