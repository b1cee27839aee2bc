# SPDX-License-Identifier: BSD-2-Clause
# ghostmem's programs beside the agent and the command, and what `make install` adds.
$(B)/ghostmem-kv: $(B)/user/share/example/kv.o $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(SHARE_LIBS)
$(B)/libghostmem.pc: user/share/libghostmem.pc.in $(B)/paths
	$(call say,GEN,$@)mkdir -p $(@D) && sed -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' $< >$@
all share-tests: $(B)/ghostmem-kv

# The library can be linked into shared objects; nobody replaces parts of it there.
$(call obj,$(SHARE_SRC) $(LIB_SRC) user/share/preload/file.c): GN_CFLAGS += -fPIC -fno-semantic-interposition
$(B)/libghostmem-file.so: $(B)/user/share/preload/file.o $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -shared -Wl,--exclude-libs,ALL \
		-Wl,--as-needed -o $@ $^ $(SHARE_LIBS)
all: $(B)/libghostmem-file.so

$(B)/lib/libghostmem.a: $(call obj,$(wildcard user/share/lib/*.c)) $(SHARE_A) $(LIB_A) user/share/ghostmem.h
INSTALLED += $(B)/ghostmem:$(BINDIR):755 $(B)/ghostmemd:$(SBINDIR):755 $(B)/ghostmem-kv:$(BINDIR):755 \
	$(B)/lib/libghostmem.a:$(LIBDIR):644 $(B)/libghostmem-file.so:$(LIBDIR):644 $(B)/libghostmem.pc:$(LIBDIR)/pkgconfig:644 \
	user/share/ghostmem.h:$(INCLUDEDIR):644 $(B)/ghostmemd.service:$(UNITDIR):644 \
	user/share/example/kv.c:$(DOCDIR):644
$(B)/ghostmemd.service: user/share/agent/ghostmemd.service $(B)/paths
	$(call say,GEN,$@)mkdir -p $(@D) && sed 's|@SBINDIR@|$(SBINDIR)|' $< >$@
install: $(B)/ghostmemd.service $(SHARE_PROG) $(B)/lib/libghostmem.a $(B)/ghostmem-kv $(B)/libghostmem-file.so $(B)/libghostmem.pc
