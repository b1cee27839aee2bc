# SPDX-License-Identifier: BSD-2-Clause
# The benchmark of whole migrations; docs/benchmarks.md says what its numbers mean.

BENCH_MIGRATE := $(B)/tests/bench/migrate
BENCH_GUEST   := $(B)/tests/bench/guest/writer.elf

$(BENCH_MIGRATE): $(B)/tests/bench/migrate.o $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS)
# A guest of its own machine: none of the host's flags.
$(BENCH_GUEST): tests/bench/guest/writer.c tests/bench/guest/writer.ld
	$(call say,GUEST,$@)mkdir -p $(@D) && $(CC) -m32 -ffreestanding -fno-pic -fno-stack-protector \
		-mgeneral-regs-only -O2 -Wall -Wextra -nostdlib -static \
		-Wl,-n,--build-id=none,--no-warn-rwx-segments,-T,tests/bench/guest/writer.ld -o $@ $<

# The same program with next to no hashing, in $(B)/nodigest: what the digest costs.
bench-nodigest:
	$(Q)$(MAKE) --no-print-directory B=$(B)/nodigest CFLAGS='$(CFLAGS) -DGN_NO_DIGEST' \
		$(B)/nodigest/vm-migrate/vm-migrate
bench-migrate-progs: $(BENCH_MIGRATE) $(BENCH_GUEST) $(B)/tests/bench/harvest bench-nodigest
bench-migrate: ## live migration beside QEMU's and a raw copy (root)
	$(Q)sh tests/deps.sh build demo vm bench
	$(Q)$(MAKE) --no-print-directory all bench-migrate-progs
	$(Q)GN_BIN=$(abspath $(B)) bash tests/bench/migrate.sh
bench: bench-migrate

.PHONY: bench-nodigest bench-migrate bench-migrate-progs
