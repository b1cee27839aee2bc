# SPDX-License-Identifier: BSD-2-Clause
# Benchmarks of the dirty logs; docs/dirty-logs.md says what they mean.

HARVEST := $(B)/tests/bench/harvest
DIRTY_KVM := $(B)/tests/bench/dirty_kvm
$(DIRTY_KVM): $(MIGRATE_HELPERS_A)
$(HARVEST) $(DIRTY_KVM): $(B)/%: $(B)/%.o $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< \
		$(filter $(MIGRATE_HELPERS_A),$^) $(MIGRATE_A) $(LIB_A) $(MIGRATE_LIBS) \
		$(if $(filter $(MIGRATE_HELPERS_A),$^),-lcmocka)

bench-dirty: ## dirty logs: KVM's in a guest, bitmaps and PAGEMAP_SCAN here
	$(Q)sh tests/deps.sh build test vm
	$(Q)$(MAKE) --no-print-directory $(HARVEST) $(DIRTY_KVM)
	$(Q)B=$(abspath $(B)) bash tests/bench/dirty.sh

.PHONY: bench-dirty
