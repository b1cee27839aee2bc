# SPDX-License-Identifier: BSD-2-Clause
# What looks at the RAM of the guest that writes (tests/migrate/writer-lib.sh).

WRITER_RAM := $(B)/tests/migrate/guest/writer_ram
$(WRITER_RAM): $(WRITER_RAM).o
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $<
migrate-tests: $(WRITER_RAM)
