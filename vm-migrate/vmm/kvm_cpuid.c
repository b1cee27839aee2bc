// SPDX-License-Identifier: BSD-2-Clause
/*
 * kvm_cpuid: see kvm.h. Sources: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E;
 * Documentation/virt/kvm/x86/cpuid.rst.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm.h"

#define ENTRIES 256

#define F1_ECX_VMX	  (1U << 5)
#define F1_ECX_HYPERVISOR (1U << 31)
#define F1_EDX_HTT	  (1U << 28)
#define F81_ECX_SVM	  (1U << 2)
#define F81_ECX_CMP	  (1U << 1)

int kvm_cpuid_get(int kvm_fd, struct kvm_cpuid2 **out)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + ENTRIES * sizeof(c->entries[0]));

	if (!c)
		return -ENOMEM;
	c->nent = ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c)) {
		int err = -errno;

		free(c);
		return err;
	}
	*out = c;
	return 0;
}

void kvm_cpuid_for(struct kvm_cpuid2 *c, unsigned int i)
{
	for (unsigned int n = 0; n < c->nent; n++) {
		struct kvm_cpuid_entry2 *e = &c->entries[n];

		switch (e->function) {
		case 1:
			e->ebx = (e->ebx & 0xffff) | 1U << 16 | i << 24;
			e->ecx = (e->ecx & ~F1_ECX_VMX) | F1_ECX_HYPERVISOR;
			e->edx &= ~F1_EDX_HTT;
			break;
		case 4: e->eax &= 0x3fff; break; /* caches are of one CPU */
		case 0xb:
		case 0x1f:
			/* No levels of topology; only who it is. */
			e->eax = e->ebx = 0;
			e->ecx = e->index & 0xff;
			e->edx = i;
			break;
		case 0x80000001: e->ecx &= ~(F81_ECX_SVM | F81_ECX_CMP); break;
		case 0x80000008: e->ecx &= ~0xf0ffU; break;
		case 0x8000001e:
			e->eax = i;
			e->ebx = e->ecx = 0;
			break;
		default: break;
		}
	}
}

/* Leaves whose bits are features. */
static const struct {
	uint32_t function, index;
	bool eax, ebx, ecx, edx;
} feature_leaf[] = {
	{ 1, 0, false, false, true, true },
	{ 7, 0, false, true, true, true },
	{ 7, 1, true, false, false, true },
	{ 0xd, 0, true, false, false, true },
	{ 0xd, 1, true, false, true, true },
	{ 0x80000001, 0, false, false, true, true },
	{ 0x80000007, 0, false, false, false, true },
	{ 0x80000008, 0, false, true, false, false },
	{ 0x40000001, 0, true, false, false, false },
};

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *c, uint32_t function,
					   uint32_t index)
{
	for (unsigned int n = 0; n < c->nent; n++)
		if (c->entries[n].function == function && c->entries[n].index == index)
			return &c->entries[n];
	return NULL;
}

/* Bits that KVM or the vCPU's state sets, whatever the machine. */
static uint32_t dynamic(uint32_t function)
{
	return function == 1 ? F1_ECX_HYPERVISOR | 1U << 27 : 0; /* OSXSAVE */
}

bool kvm_cpuid_missing(const struct kvm_cpuid2 *want, const struct kvm_cpuid2 *have,
		       char *text, size_t len)
{
	static const struct kvm_cpuid_entry2 none;

	for (unsigned int i = 0; i < sizeof(feature_leaf) / sizeof(feature_leaf[0]);
	     i++) {
		const uint32_t f = feature_leaf[i].function, x = feature_leaf[i].index;
		const struct kvm_cpuid_entry2 *w = find(want, f, x),
					      *h = find(have, f, x);
		uint32_t miss[4];

		if (!w)
			continue;
		if (!h)
			h = &none;
		miss[0] = feature_leaf[i].eax ? w->eax & ~h->eax : 0;
		miss[1] = feature_leaf[i].ebx ? w->ebx & ~h->ebx : 0;
		miss[2] = feature_leaf[i].ecx ? w->ecx & ~h->ecx & ~dynamic(f) : 0;
		miss[3] = feature_leaf[i].edx ? w->edx & ~h->edx : 0;
		if (miss[0] | miss[1] | miss[2] | miss[3]) {
			snprintf(text, len,
				 "CPUID leaf %#x.%u: eax %#x, ebx %#x, ecx %#x, edx %#x",
				 f, x, miss[0], miss[1], miss[2], miss[3]);
			return true;
		}
	}
	return false;
}
