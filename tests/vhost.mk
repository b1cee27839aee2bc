# SPDX-License-Identifier: BSD-2-Clause
# A daemon that forgets the dirty log, for the migration test to be seen failing.

UNLOGGED := $(B)/tests/vhost/ghostnicd-unlogged
$(UNLOGGED): $(B)/user/daemon/main.o $(B)/tests/vhost/unlogged.o $(DAEMON_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -Wl,--wrap=dma_log_mark_front \
		-o $@ $^ $(GN_LIBS)
netns-tests: $(UNLOGGED)
