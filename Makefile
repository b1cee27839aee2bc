# SPDX-License-Identifier: BSD-2-Clause
# ghostnic: one non-recursive makefile. Output under $(B); V=1 shows commands.
# Honoured: CC CLANG CFLAGS LDFLAGS DESTDIR PREFIX. WERROR=1 for CI.

CC      ?= gcc
CLANG   ?= clang
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool) bpftool)
PREFIX  ?= /usr/local
B       ?= build
SAN     ?=
CFLAGS  ?= -O2 -g
VERSION := 0.1.0

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SUFFIXES:
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-7s %s\n' '$(1)' '$(2)';)

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wpointer-arith -Wwrite-strings -Wvla -Wundef -Wno-unused-parameter \
	-Wno-gnu-variable-sized-type-not-at-end \
	$(if $(WERROR),-Werror)
PKGS := libxdp libbpf jansson libseccomp libcap-ng inih
GN_CFLAGS := -std=gnu11 -D_GNU_SOURCE -DGN_VERSION='"$(VERSION)"' -I$(B) $(WARN) \
	-fno-strict-aliasing -fstack-protector-strong \
	$(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer) \
	-pthread $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
GN_LDFLAGS := -pthread $(if $(SAN),-fsanitize=$(SAN))
GN_LIBS := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
MIGRATE_LIBS := $(shell pkg-config --libs gnutls libzstd libxxhash jansson libseccomp libcap-ng 2>/dev/null) -lm

# ---- sources --------------------------------------------------------------
LIB_SRC    := $(wildcard user/lib/*.c)
DAEMON_SRC := $(filter-out user/daemon/main.c,$(wildcard user/daemon/*.c user/daemon/*/*.c))
LOADER_SRC := $(wildcard loader/*.c)
MIGRATE_CMD_SRC := vm-migrate/main.c $(wildcard vm-migrate/cmd/*.c)
MIGRATE_SRC := $(filter-out $(MIGRATE_CMD_SRC),$(wildcard vm-migrate/*.c vm-migrate/*/*.c))
BPF_SRC    := $(wildcard bpf/*.bpf.c)
BENCH_BPF  := $(wildcard tests/bench/*.bpf.c)
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
HELPER_SRC := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
XDP_SRC    := $(wildcard tests/xdp/test_*.c)
XDP_HELPER_SRC := $(filter-out $(XDP_SRC),$(wildcard tests/xdp/*.c))
MIGRATE_TEST_SRC := $(wildcard tests/migrate/test_*.c)
MIGRATE_HELPER_SRC := $(filter-out $(MIGRATE_TEST_SRC),$(wildcard tests/migrate/*.c))
FUZZ_SRC   := $(wildcard tests/fuzz/fuzz_*.c)

obj   = $(patsubst %.c,$(B)/%.o,$(1))
SKEL := $(patsubst %.bpf.c,$(B)/%.skel.h,$(BPF_SRC) $(BENCH_BPF))

LIB_A    := $(B)/libghostnic.a
DAEMON_A := $(B)/libdaemon.a
MIGRATE_A := $(B)/libvm-migrate.a
HELPERS_A := $(B)/tests/unit/libhelpers.a
XDP_HELPERS_A := $(B)/tests/xdp/libhelpers.a
MIGRATE_HELPERS_A := $(B)/tests/migrate/libhelpers.a
PROGS    := $(B)/ghostnic $(B)/ghostnicd
MIGRATE_PROG := $(B)/vm-migrate/vm-migrate
MIGRATE_BIN := $(patsubst %.c,$(B)/%,$(MIGRATE_TEST_SRC))
UNIT_BIN := $(patsubst %.c,$(B)/%,$(UNIT_SRC))
XDP_BIN  := $(patsubst %.c,$(B)/%,$(XDP_SRC))
FUZZ_BIN := $(patsubst %.c,$(B)/%,$(FUZZ_SRC))

all: $(PROGS) $(MIGRATE_PROG) ## build all programs and libraries

# ---- rules ----------------------------------------------------------------
$(B)/%.o: %.c
	$(call say,CC,$<)mkdir -p $(@D) && $(CC) $(GN_CFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
$(B)/%.bpf.o: %.bpf.c
	$(call say,BPF,$<)mkdir -p $(@D) && $(CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra \
		-Wno-unused-parameter $(if $(WERROR),-Werror) -Ibpf \
		-idirafter /usr/include/$(MULTIARCH) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@
$(B)/%.skel.h: $(B)/%.bpf.o
	$(call say,SKEL,$@){ echo '// NOLINTBEGIN' && \
		$(BPFTOOL) gen skeleton $< name $(notdir $*)_bpf && echo '// NOLINTEND'; } >$@

$(LIB_A): $(call obj,$(LIB_SRC))
$(DAEMON_A): $(call obj,$(DAEMON_SRC))
$(MIGRATE_A): $(call obj,$(MIGRATE_SRC))
$(HELPERS_A): $(call obj,$(HELPER_SRC))
$(XDP_HELPERS_A): $(call obj,$(XDP_HELPER_SRC))
$(MIGRATE_HELPERS_A): $(call obj,$(MIGRATE_HELPER_SRC))
$(LIB_A) $(DAEMON_A) $(MIGRATE_A) $(HELPERS_A) $(XDP_HELPERS_A) $(MIGRATE_HELPERS_A):
	$(call say,AR,$@)mkdir -p $(@D) && rm -f $@ && ar rcs $@ $^

$(B)/ghostnic: $(call obj,$(LOADER_SRC)) $(LIB_A)
$(B)/ghostnicd: $(B)/user/daemon/main.o $(DAEMON_A) $(LIB_A)
$(PROGS):
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(GN_LIBS)

$(B)/vm-migrate/vm-migrate: $(call obj,$(MIGRATE_CMD_SRC)) $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS)

# Generated headers exist before anything that might include them is compiled.
$(call obj,$(LOADER_SRC) $(XDP_SRC) $(XDP_HELPER_SRC)): | $(patsubst %.bpf.c,$(B)/%.skel.h,$(BPF_SRC))

$(XDP_BIN): $(XDP_HELPERS_A)
$(UNIT_BIN) $(XDP_BIN): $(B)/%: $(B)/%.o $(HELPERS_A) $(DAEMON_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(GN_LIBS) -lcmocka

$(MIGRATE_BIN): $(B)/%: $(B)/%.o $(MIGRATE_HELPERS_A) $(MIGRATE_A) $(LIB_A)
	$(call say,LD,$@)$(CC) $(GN_LDFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(MIGRATE_LIBS) -lcmocka

-include $(shell [ -d $(B) ] && find $(B) -name '*.d')

unit-tests: $(UNIT_BIN)
migrate-tests: $(MIGRATE_BIN)
xdp-tests: $(XDP_BIN)
check: $(UNIT_BIN) $(MIGRATE_BIN) ## unit tests; needs no root
	$(Q)for t in $(UNIT_BIN) $(MIGRATE_BIN); do $$t || exit 1; done

include $(wildcard tests/*.mk)

# ---- house keeping --------------------------------------------------------
clean: ## remove build output
	$(Q)rm -rf $(B) build
help: ## this list
	$(Q)awk -F':.*## ' '/^[a-z_.-]+:.*## /{printf "  %-18s %s\n",$$1,$$2}' $(MAKEFILE_LIST)

.PHONY: all unit-tests migrate-tests xdp-tests check clean help
.SECONDARY:
