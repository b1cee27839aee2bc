// SPDX-License-Identifier: BSD-2-Clause
/*
 * A main() for fuzz targets without libFuzzer: runs the target once on each file,
 * and each file of each directory, named on the command line. Any compiler and
 * sanitizer; what `make fuzz-regress` runs over the seeds. One thread.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Return: 0 or -errno, said on stderr */
static int run_file(const char *path, size_t size)
{
	uint8_t *buf;
	FILE *f;
	size_t n;

	f = fopen(path, "rb");
	if (!f) {
		int err = -errno;

		perror(path);
		return err;
	}
	/* Exactly the input's size, so that a sanitizer sees the first byte beyond. */
	buf = malloc(size);
	n = buf || !size ? fread(buf, 1, size, f) : 0;
	fclose(f);
	if (n != size) {
		fprintf(stderr, "%s: short read\n", path);
		free(buf);
		return -EIO;
	}
	LLVMFuzzerTestOneInput(buf, n);
	free(buf);
	return 0;
}

/* Return: number of inputs run, or -errno */
static int run(const char *path)
{
	char child[4096];
	struct dirent *e;
	struct stat st;
	int n = 0, r;
	DIR *d;

	if (stat(path, &st)) {
		int err = -errno;

		perror(path);
		return err;
	}
	if (!S_ISDIR(st.st_mode)) {
		r = run_file(path, (size_t)st.st_size);
		return r ? r : 1;
	}

	d = opendir(path);
	if (!d) {
		int err = -errno;

		perror(path);
		return err;
	}
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		r = snprintf(child, sizeof(child), "%s/%s", path, e->d_name);
		r = r < (int)sizeof(child) ? run(child) : -ENAMETOOLONG;
		if (r < 0) {
			n = r;
			break;
		}
		n += r;
	}
	closedir(d);
	return n;
}

int main(int argc, char **argv)
{
	int total = 0, i, n;

	for (i = 1; i < argc; i++) {
		n = run(argv[i]);
		if (n < 0)
			return 1;
		total += n;
	}
	printf("%d inputs\n", total);
	/* Seeds that went missing are a failure, not a success on nothing. */
	return total ? 0 : 1;
}
