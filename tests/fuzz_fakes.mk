# SPDX-License-Identifier: BSD-2-Clause
# What some fuzz targets link beside the code that they try: a kernel or a peer that is played.

$(addprefix $(B)/tests/fuzz/fuzz_vm_,guest state): $(addprefix $(B)/tests/fuzz/,fake_kvm.o fake_back.o input.o)
