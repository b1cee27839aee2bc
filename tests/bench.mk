# SPDX-License-Identifier: BSD-2-Clause
# Benchmarks: programs under $(B)/tests/bench, results in build/bench. They print
# numbers and judge nothing. docs/benchmarks.md says what they mean.

BENCH_BIN := $(addprefix $(B)/tests/bench/,gen raw tap_reader gnstat pingpong shm_client)
BENCH_SHARED := $(B)/tests/bench/bench.o $(B)/tests/bench/meter.o

# DPDK is a peer to compare with, not a dependency: built where it is installed.
ifeq ($(shell pkg-config --exists libdpdk 2>/dev/null && echo y),y)
BENCH_DPDK := $(addprefix $(B)/tests/bench/,dpdk_gro vm_client)
BENCH_BIN += $(BENCH_DPDK)
$(B)/tests/bench/dpdk_gro: $(B)/tests/bench/dpdk_vhost.o
# Its headers are not held to our warnings, and say -include rte_config.h.
$(BENCH_DPDK:=.o) $(B)/tests/bench/dpdk_vhost.o: GN_CFLAGS += $(patsubst -I%,-isystem %,$(shell pkg-config --cflags libdpdk))
$(BENCH_DPDK): GN_LIBS += $(shell pkg-config --libs libdpdk)
endif

$(B)/tests/bench/shm_client: $(LIB_A)
$(BENCH_BIN:=.o) $(BENCH_SHARED): | $(patsubst %.bpf.c,$(B)/%.skel.h,$(BENCH_BPF))
$(BENCH_BIN): $(B)/tests/bench/%: $(B)/tests/bench/%.o $(BENCH_SHARED)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(GN_LIBS)

$(B)/tests/bench/csum: $(B)/tests/bench/csum.o $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^

bench-progs: $(BENCH_BIN) $(B)/tests/bench/csum
bench: bench-rx bench-vm ## all benchmarks
# A sub-make builds after the packages are there, DPDK among them.
bench-rx: ## receive path beside DPDK and the kernel (root)
	$(Q)sh tests/deps.sh build demo bench
	$(Q)$(MAKE) --no-print-directory all bench-progs
	$(Q)GN_BIN=$(abspath $(B)) bash tests/bench/rx.sh
bench-rx-curve: ## the same over flows, bursts and sizes (root)
	$(Q)sh tests/deps.sh build demo bench
	$(Q)$(MAKE) --no-print-directory all bench-progs
	$(Q)GN_BIN=$(abspath $(B)) bash tests/bench/rx.sh --curve

bench-vm: ## delivery to VMs beside DPDK's vhost (root)
	$(Q)sh tests/deps.sh build demo bench
	$(Q)$(MAKE) --no-print-directory all bench-progs
	$(Q)GN_BIN=$(abspath $(B)) bash tests/bench/vm.sh

bench-csum: $(B)/tests/bench/csum ## checksum code beside memcpy, JSON lines
	$(Q)$<

.PHONY: bench-progs bench bench-csum bench-rx bench-rx-curve bench-vm
