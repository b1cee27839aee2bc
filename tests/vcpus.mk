# SPDX-License-Identifier: BSD-2-Clause
# What looks at the vCPUs of the small VMM, in a guest that has KVM (tests/migrate/kvm-flat.sh).

VCPUS := $(B)/tests/migrate/guest/vcpus
$(VCPUS): $(VCPUS).o $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS) \
		-Wl,--wrap=virtio_net_read,--wrap=virtio_net_write
migrate-tests: $(VCPUS)
