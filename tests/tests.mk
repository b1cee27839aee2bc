# SPDX-License-Identifier: BSD-2-Clause
# Included by the Makefile: dependencies, demonstration, tests, sanitizers, fuzzing,
# static analysis, formatting, installation. Every tree of another compiler or
# sanitizer is a directory of its own under $(B).

# ---- packages, demonstration, the gate -------------------------------------
# A sub-make builds after the packages are there: this one has already asked pkg-config.
deps: ## install the missing packages of packages.txt (root)
	$(Q)sh tests/deps.sh build demo test vm
deps-lint: ; $(Q)sh tests/deps.sh build test lint
deps-bench: ; $(Q)sh tests/deps.sh build demo test bench

demo: ## show it working, in namespaces of its own (root)
	$(Q)sh tests/deps.sh build demo
	$(Q)$(MAKE) --no-print-directory all
	$(Q)GN_BIN=$(abspath $(B)) bash tests/demo.sh

test: ## every test; last line "N passed, N failed, N skipped" (root)
	$(Q)sh tests/deps.sh build demo test vm
	$(Q)B=$(abspath $(B)) bash tests/run.sh

# ---- what the network tests load ---------------------------------------------
NETNS_BPF := $(patsubst %.c,$(B)/%.o,$(wildcard tests/netns/*.bpf.c))
netns-tests: $(PROGS) $(NETNS_BPF)
all-tests: unit-tests migrate-tests xdp-tests netns-tests

# ---- sanitizers ----------------------------------------------------------------
# setarch -R: the sanitizers of Debian 12 cannot place their shadow memory under the
# address randomisation that newer kernels use by default.
NORANDOM := $(if $(shell setarch -R true 2>/dev/null && echo y),setarch -R)
RUN_TESTS = set -e; for t in $(1); do echo "  RUN     $$t"; $(NORANDOM) $$t >$$t.log 2>&1 || \
	{ cat $$t.log; exit 1; }; done

# Unit tests in which more than one thread runs, and all of the migration.
TSAN_SRC := $(if $(UNIT_SRC),$(shell grep -lE 'pthread_create|worker_start' $(UNIT_SRC)))
TSAN_BIN := $(patsubst %.c,$(B)/%,$(TSAN_SRC)) $(MIGRATE_BIN)

# One tree for unit tests and fuzzing: clang's sanitizers, and the coverage that libFuzzer wants.
# Lines only: clang 14 crashes now and then when it places variables of instrumented code.
# lld, here and below: it links a sanitized program in half the time, and there are two hundred.
ASAN_TREE := B=$(B)/asan CC=$(CLANG) CFLAGS='-O1 -gline-tables-only' LDFLAGS=-fuse-ld=lld \
	SAN=fuzzer-no-link,address,undefined
asan: ## unit tests under address and undefined-behaviour sanitizer
	$(Q)$(MAKE) --no-print-directory $(ASAN_TREE) unit-tests migrate-tests share-tests
	$(Q)$(call RUN_TESTS,$(patsubst $(B)/%,$(B)/asan/%,$(UNIT_BIN) $(MIGRATE_BIN) $(SHARE_TEST_BIN)))
asan-tree: ; $(Q)$(MAKE) --no-print-directory $(ASAN_TREE) all all-tests fuzz-bins
TSAN_TREE := B=$(B)/tsan CFLAGS='-O1 -g1' LDFLAGS=-fuse-ld=lld SAN=thread
tsan-tree: ; $(Q)$(MAKE) --no-print-directory $(TSAN_TREE) tsan-tests
tsan: ## threaded unit tests under the thread sanitizer
	$(Q)$(MAKE) --no-print-directory $(TSAN_TREE) tsan-tests
	$(Q)$(call RUN_TESTS,$(patsubst $(B)/%,$(B)/tsan/%,$(TSAN_BIN) $(SHARE_TEST_BIN)))
tsan-tests: $(TSAN_BIN) $(PROGS) $(MIGRATE_PROG)

# ---- fuzzing --------------------------------------------------------------------
FUZZ_SECONDS ?= 600
$(FUZZ_BIN): $(B)/%: $(B)/%.o $(HELPERS_A) $(DAEMON_A) $(MIGRATE_A) $(SHARE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(subst fuzzer-no-link,fuzzer,$(GN_LDFLAGS)) $(CFLAGS) \
		$(LDFLAGS) -o $@ $^ $(GN_LIBS) $(MIGRATE_LIBS)
fuzz-bins: $(FUZZ_BIN)
fuzz-objects: $(FUZZ_BIN:=.o)
fuzz-build:
	$(Q)$(MAKE) --no-print-directory $(ASAN_TREE) fuzz-bins

fuzz: fuzz-build ## fuzz every target for FUZZ_SECONDS (600)
	$(Q)for t in $(FUZZ_BIN:$(B)/tests/fuzz/%=%); do \
		B=$(B) FUZZ_SECONDS=$(FUZZ_SECONDS) sh tests/fuzz/run.sh $$t || exit 1; done
fuzz-regress: fuzz-build ## run every fuzz target once over its seeds
	$(Q)for t in $(FUZZ_BIN:$(B)/tests/fuzz/fuzz_%=%); do echo "  SEEDS   $$t"; \
		$(NORANDOM) $(B)/asan/tests/fuzz/fuzz_$$t -runs=0 tests/fuzz/seeds/$$t || exit 1; done

# ---- static analysis, format -----------------------------------------------------
C_FILES   := $(wildcard user/*/*.[ch] user/*/*/*.[ch] loader/*.[ch] \
	vm-migrate/*.[ch] vm-migrate/*/*.[ch] tests/*/*.[ch] bpf/*.[ch])
LINT_SRC  := $(LIB_SRC) $(wildcard user/daemon/*.c user/daemon/*/*.c) $(LOADER_SRC) \
	$(wildcard vm-migrate/*.c vm-migrate/*/*.c) $(wildcard user/share/*.c user/share/*/*.c)
SH_FILES  := $(wildcard tests/*.sh tests/*/*.sh tests/*/*/*.sh) .ci/run

compile_commands.json: deps-lint ## for editors and clang-tidy
	$(call say,BEAR,$@)rm -rf $@ $(B)/lint && \
		bear -- $(MAKE) -s B=$(B)/lint CC=$(CLANG) all all-tests fuzz-objects

lint: lint-sh lint-cppcheck lint-gcc lint-tidy ## all static analysis
lint-tidy: compile_commands.json ## clang-tidy
	$(call say,TIDY,$(words $(LINT_SRC)) files)printf '%s\n' $(LINT_SRC) | xargs -P 2 -n 4 \
		clang-tidy -p . --quiet --warnings-as-errors='*' >$(B)/tidy.log 2>&1 || \
		{ grep -v 'warnings generated' $(B)/tidy.log; exit 1; }
lint-cppcheck: deps-lint ## cppcheck
	$(call say,CPPCHK,$(words $(LINT_SRC)) files)cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability \
		--inline-suppr --suppressions-list=.cppcheck -D__x86_64__ -Ibpf -j 2 \
		'-Djson_array_foreach(a,i,v)=for(i=0;(v=json_array_get(a,i));i++)' \
		'-Djson_object_foreach(o,k,v)=for(;(v=json_object_get(o,k));)' $(LINT_SRC)
# Of gcc 12's analyzer, not: leaks of what a container or an out-pointer now owns, and
# values set whenever the error code that guards their use is 0. It does not follow
# either; the leak sanitizer in `make asan` and -Wmaybe-uninitialized do.
lint-gcc: ## gcc -fanalyzer
	$(Q)$(MAKE) --no-print-directory B=$(B)/analyzer CC=gcc WERROR=1 \
		CFLAGS='-O1 -g -fanalyzer -Wno-analyzer-malloc-leak -Wno-analyzer-use-of-uninitialized-value' all
lint-sh: ## shellcheck
	$(call say,SHELL,$(words $(SH_FILES)) files)shellcheck -x $(SH_FILES)

format: ## rewrite the C files in the project's format
	$(Q)clang-format -i $(C_FILES)
format-check: ## is every C file in the project's format?
	$(Q)clang-format --dry-run -Werror $(C_FILES)

# ---- installation -----------------------------------------------------------------
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
MANDIR     ?= $(PREFIX)/share/man
UNITDIR    ?= $(PREFIX)/lib/systemd/system
DOCDIR     ?= $(PREFIX)/share/doc/ghostnic
INSTALL    ?= install
LIB_H      := user/lib/ghostnic.h
# What a VMM that migrates includes; see docs/migrate.md.
MIGRATE_H  := digest.h ram.h state.h dirty/dirty.h precopy/incoming.h precopy/precopy.h \
	stream/chan.h stream/receiver.h stream/sender.h stream/wire.h
DOCS       := README.md LICENSE $(wildcard docs/*.md)
MAN_PAGES  := $(wildcard man/*.[1-8])
UNITS      := $(wildcard user/daemon/*.service)

# FILE:DIRECTORY:MODE, the one list that install and uninstall share
INSTALLED := $(B)/ghostnic:$(BINDIR):755 $(B)/ghostnicd:$(SBINDIR):755 \
	$(MIGRATE_PROG:%=%:$(BINDIR):755) \
	$(B)/lib/libghostnic.a:$(LIBDIR):644 $(B)/libghostnic.pc:$(LIBDIR)/pkgconfig:644 \
	$(B)/lib/libvm-migrate.a:$(LIBDIR):644 $(B)/libvm-migrate.pc:$(LIBDIR)/pkgconfig:644 \
	$(foreach h,$(LIB_H),$(h):$(INCLUDEDIR)/ghostnic:644) \
	$(foreach h,$(MIGRATE_H),vm-migrate/$(h):$(INCLUDEDIR)/ghostnic/migrate/$(patsubst ./%,%,$(dir $(h))):644) \
	$(foreach m,$(MAN_PAGES),$(m):$(MANDIR)/man$(subst .,,$(suffix $(m))):644) \
	$(foreach u,$(UNITS),$(B)/$(notdir $(u)):$(UNITDIR):644) \
	$(foreach d,$(DOCS),$(d):$(DOCDIR):644)

# A library as programs get it: one object with all that it needs, and no global names but
# those that are in its headers, so that no inner name meets one of the program's.
$(B)/lib/libghostnic.a: $(call obj,user/lib/ctl_client.c user/lib/shm_client.c) $(LIB_A) $(LIB_H)
$(B)/lib/libvm-migrate.a: $(call obj,$(filter-out $(addprefix vm-migrate/,qemu/% rate/% vmm/%),$(MIGRATE_SRC))) \
	$(MIGRATE_A) $(LIB_A) $(addprefix vm-migrate/,$(MIGRATE_H))
$(B)/lib/%.a:
	$(call say,AR,$@)mkdir -p $(@D) && $(CC) $(CFLAGS) $(if $(findstring -flto,$(CFLAGS)),-flinker-output=nolto-rel) \
		-r -o $(@:.a=.o) $(filter %.o,$^) $(filter %.a,$^) && \
	grep -ohE '\w+' $(filter %.h,$^) >$(@:.a=.words) && \
	nm -g --defined-only -f posix $(@:.a=.o) | cut -d' ' -f1 | grep -xFf $(@:.a=.words) >$(@:.a=.names) && \
	objcopy --keep-global-symbols=$(@:.a=.names) $(@:.a=.o) && rm -f $@ && ar rcs $@ $(@:.a=.o)

# What is written into installed files, which are made anew when it is another.
PATHS := $(BINDIR) $(SBINDIR) $(LIBDIR) $(INCLUDEDIR) $(VERSION)
$(B)/paths: FORCE
	$(Q)mkdir -p $(@D) && { echo '$(PATHS)' | cmp -s - $@ || echo '$(PATHS)' >$@; }

$(B)/libghostnic.pc: user/lib/libghostnic.pc.in
$(B)/libvm-migrate.pc: vm-migrate/libvm-migrate.pc.in
$(B)/libghostnic.pc $(B)/libvm-migrate.pc: $(B)/paths
	$(call say,GEN,$@)mkdir -p $(@D) && sed -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
		-e 's|@VERSION@|$(VERSION)|' $(filter %.in,$^) >$@
$(B)/%.service: user/daemon/%.service $(B)/paths
	$(call say,GEN,$@)mkdir -p $(@D) && sed -e 's|@BINDIR@|$(BINDIR)|' -e 's|@SBINDIR@|$(SBINDIR)|' $< >$@

install: $(PROGS) $(MIGRATE_PROG) $(B)/lib/libghostnic.a $(B)/libghostnic.pc $(B)/lib/libvm-migrate.a $(B)/libvm-migrate.pc $(patsubst user/daemon/%,$(B)/%,$(UNITS)) ## into DESTDIR, PREFIX
	$(Q)for i in $(INSTALLED); do f=$${i%%:*}; m=$${i##*:}; d=$${i#*:}; d=$${d%:*}; \
		$(INSTALL) -D -m $$m $$f $(DESTDIR)$$d/$${f##*/} || exit 1; done
uninstall: ## remove what install put there
	$(Q)for i in $(INSTALLED); do f=$${i%%:*}; d=$${i#*:}; d=$${d%:*}; \
		rm -f $(DESTDIR)$$d/$${f##*/} || exit 1; done
	$(Q)for d in $(DESTDIR)$(INCLUDEDIR)/ghostnic $(DESTDIR)$(DOCDIR); do \
		[ ! -d $$d ] || find $$d -depth -type d -empty -delete; done

.PHONY: FORCE deps deps-lint deps-bench demo test netns-tests all-tests asan asan-tree tsan tsan-tree tsan-tests fuzz-bins fuzz-objects \
	fuzz-build fuzz fuzz-regress lint lint-tidy lint-cppcheck lint-gcc \
	lint-sh format format-check install uninstall compile_commands.json
