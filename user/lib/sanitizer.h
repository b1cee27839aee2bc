/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sanitizer: is this built with the address or thread sanitizer? GN_SANITIZED is 1 then, else
 * 0. Their run time forks, traces and has threads of its own, which a system call filter
 * or a fork()ed child without exec has to allow for.
 */
#ifndef GN_SANITIZER_H
#define GN_SANITIZER_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* gcc */
#define GN_SANITIZED 1
#elif defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define GN_SANITIZED 1
#endif
#endif
#ifndef GN_SANITIZED
#define GN_SANITIZED 0
#endif

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#endif

/** gn_locked() - a mutex was taken by a call that gcc 12's thread sanitizer does not know,
 * such as pthread_mutex_clocklock() */
static inline void gn_locked(void *mutex)
{
#ifdef __SANITIZE_THREAD__
	__tsan_mutex_pre_lock(mutex, __tsan_mutex_try_lock);
	__tsan_mutex_post_lock(mutex, __tsan_mutex_try_lock, 0);
#endif
}

#endif
