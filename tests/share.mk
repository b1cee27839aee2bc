# SPDX-License-Identifier: BSD-2-Clause
# ghostmem: agent, CLI, library, their tests.
SHARE_CMD  := $(wildcard user/share/cmd/*.c)
SHARE_SRC  := $(filter-out $(SHARE_CMD) user/share/agent/ghostmemd.c user/share/example/% user/share/preload/%, \
	$(wildcard user/share/*.c user/share/*/*.c))
SHARE_TEST_SRC   := $(wildcard tests/share/test_*.c)
SHARE_RIG_SRC    := tests/share/owners.c
SHARE_HELPER_SRC := $(filter-out $(SHARE_TEST_SRC) $(SHARE_RIG_SRC),$(wildcard tests/share/*.c))
SHARE_A     := $(B)/libghostmem.a
SHARE_RIG_A := $(B)/tests/share/librig.a
SHARE_PROG  := $(B)/ghostmemd $(B)/ghostmem
SHARE_TEST_BIN := $(patsubst %.c,$(B)/%,$(SHARE_TEST_SRC))
# Programs that tests/share/*.sh run: each its own main, linked with the library.
SHARE_HELPER_BIN := $(patsubst %.c,$(B)/%,$(SHARE_HELPER_SRC))
SHARE_LIBS := $(shell pkg-config --libs gnutls nettle hogweed jansson libcurl libseccomp libcap-ng 2>/dev/null)

$(SHARE_A): $(call obj,$(SHARE_SRC))
$(SHARE_RIG_A): $(call obj,$(SHARE_RIG_SRC))
$(SHARE_A) $(SHARE_RIG_A):
	$(call say,AR,$@)rm -f $@ && ar rcs $@ $^
$(B)/ghostmemd: $(B)/user/share/agent/ghostmemd.o $(SHARE_A) $(LIB_A)
$(B)/ghostmem: $(call obj,$(SHARE_CMD)) $(SHARE_A) $(LIB_A)
$(SHARE_PROG):
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(SHARE_LIBS)
$(SHARE_TEST_BIN): $(B)/%: $(B)/%.o $(SHARE_RIG_A) $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(SHARE_LIBS) -lcmocka
$(SHARE_HELPER_BIN): $(B)/%: $(B)/%.o $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(SHARE_LIBS)

all: $(SHARE_PROG) $(SHARE_A)
share-tests: $(SHARE_TEST_BIN) $(SHARE_HELPER_BIN) $(SHARE_PROG)
all-tests tsan-tests: share-tests
.PHONY: share-tests
