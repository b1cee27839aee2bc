# SPDX-License-Identifier: BSD-2-Clause
# Tests in which functions of the library give way to the test's own.

# Looks at the vCPUs of the small VMM, in a guest that has KVM (tests/migrate/kvm-flat.sh).
VCPUS := $(B)/tests/migrate/guest/vcpus
$(VCPUS): $(VCPUS).o $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS) \
		-Wl,--wrap=virtio_net_read,--wrap=virtio_net_write
migrate-tests: $(VCPUS)

$(B)/tests/migrate/test_stall: GN_LDFLAGS += -Wl,--wrap=peer_await_sync,--wrap=chan_unsent
