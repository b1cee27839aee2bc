# SPDX-License-Identifier: BSD-2-Clause
# What stands behind a shared-memory port in the network tests: links the library alone,
# as a user's program does.

SHM_PEER := $(B)/tests/netns/shm_peer
$(SHM_PEER): $(B)/tests/netns/shm_peer.o $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^
netns-tests: $(SHM_PEER)
