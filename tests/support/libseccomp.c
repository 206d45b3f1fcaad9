/* The oracle: what libseccomp makes of a profile, as runc feeds it. Test only; jug never links libseccomp.
 *
 * stdin, one directive a line: "default ACTION", "arch TOKEN" (hexadecimal), "only" (drops the build architecture),
 * "rule ACTION NAME [INDEX OP A B]...", "names TOKEN" (lists "name NUMBER NAME") (actions and operators as libseccomp numbers them, all hexadecimal).
 * stdout: "unknown NAME", "newest TOKEN NUMBER" (the highest number any rule names, signed), then "error RC LINE" or
 * one "CODE JT JF K" line per instruction. */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/filter.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void print_program(scmp_filter_ctx ctx)
{
	FILE *file = tmpfile();
	struct sock_filter insn;
	if (!file || seccomp_export_bpf(ctx, fileno(file)) < 0 || lseek(fileno(file), 0, SEEK_SET) < 0)
		fail("seccomp_export_bpf");
	while (read(fileno(file), &insn, sizeof insn) == sizeof insn)
		printf("%x %x %x %x\n", insn.code, insn.jt, insn.jf, insn.k);
}

int main(void)
{
	char line[4096], name[64];
	uint32_t archs[8] = { SCMP_ARCH_X86_64 };
	int newest[8] = { 0 }, arch_count = 1, number = 0, error = 0, error_line = 0, consumed;
	scmp_filter_ctx ctx = NULL;
	uint32_t action;

	seccomp_api_set(5); /* the answer must not depend on the kernel below */
	while (fgets(line, sizeof line, stdin)) {
		number++;
		if (sscanf(line, "default %" SCNx32, &action) == 1) {
			ctx = seccomp_init(action);
			if (!ctx)
				fail("seccomp_init");
		} else if (!strcmp(line, "only\n")) {
			if (seccomp_arch_remove(ctx, SCMP_ARCH_X86_64) < 0)
				fail("seccomp_arch_remove");
			memmove(archs, archs + 1, sizeof archs - sizeof *archs);
			arch_count--;
		} else if (sscanf(line, "names %" SCNx32, &action) == 1) {
			for (int i = 0; i < 0xf0010; i = i == 0x3ff ? 0xf0000 : i + 1) {
				int bit = action == SCMP_ARCH_X32 ? 0x40000000 : 0;
				char *known = seccomp_syscall_resolve_num_arch(action, bit + i);
				if (known)
					printf("name %d %s\n", bit + i, known);
				free(known);
			}
		} else if (sscanf(line, "arch %" SCNx32, &action) == 1) {
			int rc = seccomp_arch_add(ctx, action);
			if (rc == -EEXIST)
				continue;
			if (rc < 0)
				fail("seccomp_arch_add");
			archs[arch_count++] = action;
		} else if (sscanf(line, "rule %" SCNx32 " %63s%n", &action, name, &consumed) == 2) {
			struct scmp_arg_cmp args[6];
			int count = 0, more, syscall = seccomp_syscall_resolve_name(name);
			const char *rest = line + consumed;
			while (sscanf(rest, " %x %x %" SCNx64 " %" SCNx64 "%n", &args[count].arg, &args[count].op,
				      &args[count].datum_a, &args[count].datum_b, &more) == 4) {
				rest += more;
				count++;
			}
			if (syscall == __NR_SCMP_ERROR) {
				printf("unknown %s\n", name);
				continue;
			}
			for (int i = 0; i < arch_count; i++) {
				int there = seccomp_syscall_resolve_name_arch(archs[i], name);
				if (there > newest[i])
					newest[i] = there;
			}
			/* "rule" with the default action only names the call, as runc does. */
			uint32_t act_default;
			seccomp_attr_get(ctx, SCMP_FLTATR_ACT_DEFAULT, &act_default);
			if (error || action == act_default)
				continue;
			error = seccomp_rule_add_array(ctx, action, syscall, count, args);
			error_line = number;
		}
	}
	for (int i = 0; i < arch_count; i++)
		printf("newest %x %d\n", archs[i], newest[i]);
	if (error)
		printf("error %d %d\n", error, error_line);
	else
		print_program(ctx);
	return 0;
}
