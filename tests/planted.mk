# SPDX-License-Identifier: BSD-2-Clause
# Planted faults of the migration: objects of their own, in $(B)/faults.

PLANTED := $(B)/tests/migrate/faults/planted
$(PLANTED): $(B)/tests/migrate/faults/planted.o $(MIGRATE_HELPERS_A) $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS) -lcmocka

ifeq ($(GN_FAULTS)$(SAN),)
planted:
	$(Q)$(MAKE) --no-print-directory B=$(B)/faults GN_FAULTS=1 CFLAGS='$(CFLAGS) -DGN_FAULTS' \
		$(B)/faults/tests/migrate/faults/planted
migrate-tests: planted
.PHONY: planted
endif
