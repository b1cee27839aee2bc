# SPDX-License-Identifier: BSD-2-Clause
# ghostmem's benchmark; docs/benchmarks.md says what its numbers mean.
BENCH_SHARE := $(addprefix $(B)/tests/bench/,share_raw share_mem)
$(BENCH_SHARE): $(B)/%: $(B)/%.o $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(SHARE_LIBS)

bench-share-progs: $(BENCH_SHARE) $(SHARE_PROG)
bench-share: ## sharing memory beside TCP and UCX, about three minutes (root)
	$(Q)sh tests/deps.sh build demo bench
	$(Q)$(MAKE) --no-print-directory bench-share-progs
	$(Q)GN_BIN=$(abspath $(B)) bash tests/bench/share.sh
all-tests: bench-share-progs
bench: bench-share
.PHONY: bench-share bench-share-progs
