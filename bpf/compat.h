/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Names that a kernel tree would bring. */
#ifndef EBPFMESH_COMPAT_H
#define EBPFMESH_COMPAT_H

#ifndef NULL
#define NULL ((void *)0)
#endif
#ifndef true
#define true 1
#define false 0
#endif
#ifndef offsetof
#define offsetof(type, member) __builtin_offsetof(type, member)
#endif
#ifndef PAGE_SIZE
#define PAGE_SIZE 4096 /* bcc counts rings in them */
#endif
#ifndef AF_INET
#define AF_INET 2
#endif

#endif
