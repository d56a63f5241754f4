/* Attempts to get out of a cell, one a subcommand, and what the suite needs on
 * the host's side to look for them. Compiled by the test (`cc -static`), so that
 * the same program runs on the host, in a cell, in bwrap and in a container.
 *
 *   attempts serve DIR        waits for DIR/plan, makes each attempt in a process
 *                             of its own, writes DIR/results, then DIR/done
 *   attempts NAME ARGUMENT…   one attempt
 *
 * An attempt says `escaped` or `stopped`, a tab, and what it saw. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

/* Not position independent, so this lies at the same address in every process
 * of this program. */
static char treasure[64] = "treasure: not yet";
/* Where the attempts of a system call's other numbers find their strings. */
static char low_type[] = "user", low_name[] = "lazarus-escape", low_text[] = "x";

static const char *errno_name(int e) {
    const char *name = strerrorname_np(e);
    return name ? name : "?";
}

static void say(const char *verdict, const char *format, va_list arguments) {
    char line[1024];
    int at = snprintf(line, sizeof line, "%s\t", verdict);
    vsnprintf(line + at, sizeof line - at - 1, format, arguments);
    for (char *c = line + at; *c; c++)
        if (*c == '\n' || *c == '\t') *c = ' ';
    strcat(line, "\n");
    if (write(1, line, strlen(line)) < 0) _exit(3);
    _exit(0);
}
static void __attribute__((noreturn, format(printf, 1, 2))) escaped(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say("escaped", format, arguments);
    _exit(0);
}
static void __attribute__((noreturn, format(printf, 1, 2))) stopped(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    say("stopped", format, arguments);
    _exit(0);
}
/* Stops here with the error's name where the call failed. */
static long try(long result, const char *what) {
    if (result < 0) stopped("%s from %s", errno_name(errno), what);
    return result;
}
/* For calls whose arguments the kernel refuses: who answers is the question. */
static void __attribute__((noreturn)) reached(long result, const char *what) {
    if (result >= 0) escaped("%s succeeded", what);
    if (errno == EPERM || errno == EACCES || errno == ENOSYS) stopped("%s from %s", errno_name(errno), what);
    escaped("%s got as far as %s", what, errno_name(errno));
}
static const char *arg(char **a, int n) {
    for (int i = 0; i <= n; i++)
        if (!a[i]) { fprintf(stderr, "an argument is missing\n"); _exit(2); }
    return a[n];
}
static int number(char **a, int n) { return (int)strtol(arg(a, n), NULL, 0); }

/* ---- files ---- */

static void a_read(char **a) {
    char text[4096];
    int fd = (int)try(open(arg(a, 0), O_RDONLY | O_CLOEXEC | O_NONBLOCK), "open");
    long got = try(read(fd, text, sizeof text - 1), "read");
    text[got] = 0;
    if (a[1] && !memmem(text, got, a[1], strlen(a[1]))) stopped("what was sought is not there");
    if (!a[1] && got == 0) stopped("it is empty");
    escaped("%ld bytes read", got);
}
static void a_list(char **a) {
    DIR *dir = opendir(arg(a, 0));
    if (!dir) stopped("%s from opendir", errno_name(errno));
    for (struct dirent *e; (e = readdir(dir));)
        if (strstr(e->d_name, arg(a, 1))) escaped("%s is seen", e->d_name);
    stopped("it is not seen");
}
static void a_create(char **a) {
    int fd = (int)try(open(arg(a, 0), O_WRONLY | O_CREAT | O_EXCL, 0644), "open");
    try(write(fd, "here\n", 5), "write");
    escaped("made");
}
/* Only opened: nothing is written, nothing is harmed. */
static void a_write(char **a) {
    try(open(arg(a, 0), O_WRONLY | O_NONBLOCK), "open");
    escaped("opened for writing");
}
static void a_mkdir(char **a) {
    try(mkdir(arg(a, 0), 0755), "mkdir");
    rmdir(a[0]);
    escaped("made, and removed again");
}
static void a_rename(char **a) {
    try(rename(arg(a, 0), arg(a, 1)), "rename");
    rename(a[1], a[0]);
    escaped("renamed, and back");
}
static void a_chmod(char **a) {
    struct stat s;
    try(stat(arg(a, 0), &s), "stat");
    try(chmod(a[0], s.st_mode & 07777), "chmod");
    escaped("its mode can be set");
}
static void a_symlink_read(char **a) {
    char link[4096];
    snprintf(link, sizeof link, "%s/link-to-read", arg(a, 1));
    unlink(link);
    try(symlink(arg(a, 0), link), "symlink");
    char *next[] = {link, a[2], NULL};
    a_read(next);
}
static void a_symlink_create(char **a) {
    char path[4096];
    snprintf(path, sizeof path, "%s/link-to-write", arg(a, 1));
    unlink(path);
    try(symlink(arg(a, 0), path), "symlink");
    snprintf(path, sizeof path, "%s/link-to-write/%s", a[1], arg(a, 2));
    char *next[] = {path, NULL};
    a_create(next);
}
static void a_hardlink(char **a) {
    char link_[4096];
    snprintf(link_, sizeof link_, "%s/hard-link", arg(a, 1));
    unlink(link_);
    try(link(arg(a, 0), link_), "link");
    char *next[] = {link_, NULL};
    a_read(next);
}
/* A handle names a file by number, whatever is mounted where. */
static void a_handle(char **a) {
    char space[sizeof(struct file_handle) + 128];
    struct file_handle *handle = (struct file_handle *)space;
    handle->handle_bytes = 128;
    int mount_id, at = (int)try(open(arg(a, 0), O_RDONLY), "open");
    if (name_to_handle_at(AT_FDCWD, a[0], handle, &mount_id, 0) < 0) {
        /* The root of an ext4 file system: inode 2. */
        uint32_t root[2] = {2, 0};
        handle->handle_bytes = 8;
        handle->handle_type = 1;
        memcpy(handle->f_handle, root, 8);
    }
    reached(open_by_handle_at(at, handle, O_RDONLY), "open_by_handle_at");
}
static void a_chroot(char **a) {
    try(chroot(arg(a, 0)), "chroot");
    escaped("it has another root");
}

/* ---- descriptors ---- */

static void a_descriptors(char **a) {
    (void)a;
    for (int fd = 3; fd < 1024; fd++) {
        char name[64], target[512] = "";
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (fcntl(fd, F_GETFD) < 0) continue;
        long n = readlink(name, target, sizeof target - 1);
        if (n < 0) n = 0;
        target[n] = 0;
        escaped("descriptor %d is open: %s", fd, target);
    }
    stopped("none above 2");
}
static void a_descriptor_reopen(char **a) {
    (void)a;
    for (int fd = 0; fd < 3; fd++) {
        char name[64];
        struct stat s;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (fd == 1 || fstat(fd, &s) < 0 || !S_ISDIR(s.st_mode)) continue;
        escaped("%d is a directory", fd);
    }
    stopped("no stream is a directory");
}
/* The file of a program that runs, opened for writing by its own process. */
static void a_overwrite_program(char **a) {
    int to_child[2], from_child[2];
    try(pipe(to_child), "pipe");
    try(pipe(from_child), "pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(to_child[0], 0);
        dup2(from_child[1], 1);
        close(to_child[1]);
        execl(arg(a, 0), a[0], "cell-launch", "/", NULL);
        _exit(127);
    }
    usleep(200000);
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/exe", child);
    int path = open(name, O_PATH);
    int e = errno;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    if (path < 0) stopped("%s from opening its exe", errno_name(e));
    snprintf(name, sizeof name, "/proc/self/fd/%d", path);
    try(open(name, O_WRONLY), "open for writing");
    escaped("opened for writing");
}
static int each_process(int (*look)(int pid, void *with), void *with) {
    DIR *dir = opendir("/proc");
    if (!dir) stopped("%s from opening /proc", errno_name(errno));
    for (struct dirent *e; (e = readdir(dir));) {
        int pid = atoi(e->d_name);
        if (pid > 0 && look(pid, with)) return pid;
    }
    return 0;
}
static int root_leads_to(int pid, void *path) {
    char name[4096];
    static const char *ways[] = {"root", "cwd", NULL};
    for (int i = 0; ways[i]; i++) {
        snprintf(name, sizeof name, "/proc/%d/%s/%s", pid, ways[i], (char *)path);
        if (access(name, R_OK) == 0) return 1;
        snprintf(name, sizeof name, "/proc/%d/%s/../../../../../../..%s", pid, ways[i], (char *)path);
        if (access(name, R_OK) == 0) return 1;
    }
    return 0;
}
static void a_proc_roots(char **a) {
    int pid = each_process(root_leads_to, (void *)arg(a, 0));
    if (pid) escaped("through /proc/%d", pid);
    stopped("no process leads there");
}

/* ---- other processes ---- */

static void a_see(char **a) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/cmdline", number(a, 0));
    char *next[] = {path, (char *)arg(a, 1), NULL};
    a_read(next);
}
static void a_ptrace(char **a) {
    int pid = number(a, 0);
    try(ptrace(PTRACE_SEIZE, pid, 0, 0), "ptrace");
    escaped("attached to %d", pid);
}
static void a_vm_read(char **a) {
    char text[sizeof treasure] = "";
    struct iovec here = {text, sizeof text}, there = {treasure, sizeof treasure};
    long got = process_vm_readv(number(a, 0), &here, 1, &there, 1, 0);
    if (got < 0 && errno == EFAULT) escaped("allowed; only the address is wrong");
    try(got, "process_vm_readv");
    escaped("read: %s", text);
}
static void a_vm_write(char **a) {
    char text[1] = {'t'};
    struct iovec here = {text, 1}, there = {treasure, 1};
    long got = process_vm_writev(number(a, 0), &here, 1, &there, 1, 0);
    if (got < 0 && errno == EFAULT) escaped("allowed; only the address is wrong");
    try(got, "process_vm_writev");
    escaped("written");
}
static void a_proc_file(char **a) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%d/%s", number(a, 0), arg(a, 1));
    int mode = a[2] && !strcmp(a[2], "write") ? O_RDWR : O_RDONLY;
    int fd = (int)try(open(path, mode), "open");
    if (mode == O_RDONLY && strcmp(a[1], "mem")) {
        struct stat s;
        char byte;
        if (fstat(fd, &s) == 0 && !S_ISDIR(s.st_mode)) {
            if (try(read(fd, &byte, 1), "read") == 0) stopped("it is empty");
        }
    }
    escaped("opened");
}
static void a_pidfd_getfd(char **a) {
    int pid = (int)try(syscall(SYS_pidfd_open, number(a, 0), 0), "pidfd_open");
    for (int fd = 0; fd < 16; fd++)
        if (syscall(SYS_pidfd_getfd, pid, fd, 0) >= 0) escaped("took its descriptor %d", fd);
    stopped("%s from pidfd_getfd", errno_name(errno));
}
static void a_kill(char **a) {
    try(kill(number(a, 0), number(a, 1)), "kill");
    escaped("sent");
}
static void a_pidfd_signal(char **a) {
    int pid = (int)try(syscall(SYS_pidfd_open, number(a, 0), 0), "pidfd_open");
    try(syscall(SYS_pidfd_send_signal, pid, number(a, 1), NULL, 0), "pidfd_send_signal");
    escaped("sent");
}
/* The kernel sends this signal, in the name of whoever asked for it. */
static void a_sigio(char **a) {
    int ends[2];
    try(pipe(ends), "pipe");
    try(fcntl(ends[0], F_SETOWN, number(a, 0)), "F_SETOWN");
    try(fcntl(ends[0], F_SETSIG, SIGUSR1), "F_SETSIG");
    try(fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK), "F_SETFL");
    try(write(ends[1], "x", 1), "write");
    usleep(100000);
    escaped("asked for");
}
static void a_prlimit(char **a) {
    struct rlimit now;
    try(prlimit(number(a, 0), RLIMIT_NOFILE, NULL, &now), "prlimit");
    escaped("read");
}
static void a_priority(char **a) {
    errno = 0;
    int now = getpriority(PRIO_PROCESS, number(a, 0));
    if (errno) stopped("%s from getpriority", errno_name(errno));
    try(setpriority(PRIO_PROCESS, number(a, 0), now), "setpriority");
    escaped("set");
}
static void a_affinity(char **a) {
    cpu_set_t set;
    try(sched_getaffinity(number(a, 0), sizeof set, &set), "sched_getaffinity");
    try(sched_setaffinity(number(a, 0), sizeof set, &set), "sched_setaffinity");
    escaped("set");
}

/* ---- mounts ---- */

static void a_mount(char **a) {
    try(mount("none", arg(a, 0), arg(a, 1), 0, NULL), "mount");
    escaped("mounted");
}
static void a_bind(char **a) {
    try(mount(arg(a, 0), arg(a, 1), NULL, MS_BIND | MS_REC, NULL), "mount");
    escaped("mounted");
}
static void a_remount(char **a) {
    try(mount(NULL, arg(a, 0), NULL, MS_REMOUNT | MS_BIND, NULL), "mount");
    escaped("remounted");
}
static void a_umount(char **a) {
    try(umount2(arg(a, 0), MNT_DETACH), "umount2");
    escaped("taken away");
}
static void a_fsopen(char **a) {
    try(syscall(SYS_fsopen, arg(a, 0), 0), "fsopen");
    escaped("opened");
}
static void a_fspick(char **a) {
    try(syscall(SYS_fspick, AT_FDCWD, arg(a, 0), 0), "fspick");
    escaped("picked");
}
static void a_open_tree(char **a) {
    try(syscall(SYS_open_tree, AT_FDCWD, arg(a, 0), 1 /* OPEN_TREE_CLONE */), "open_tree");
    escaped("cloned");
}
static void a_move_mount(char **a) {
    (void)a;
    reached(syscall(SYS_move_mount, -1, "", -1, "", 0), "move_mount");
}
static void a_mount_setattr(char **a) {
    uint64_t attr[4] = {0, 1 /* RDONLY */, 0, 0};
    try(syscall(SYS_mount_setattr, AT_FDCWD, arg(a, 0), 0, attr, sizeof attr), "mount_setattr");
    escaped("writable now");
}
static void a_pivot_root(char **a) {
    reached(syscall(SYS_pivot_root, arg(a, 0), a[0]), "pivot_root");
}

/* ---- namespaces ---- */

static int flag(const char *name) {
    static const struct { const char *name; int flag; } known[] = {
        {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
        {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", CLONE_NEWTIME},
    };
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) return known[i].flag;
    fprintf(stderr, "no such namespace: %s\n", name);
    _exit(2);
}
static void a_unshare(char **a) {
    try(unshare(flag(arg(a, 0))), "unshare");
    escaped("made");
}
static void a_clone(char **a) {
    long pid = syscall(SYS_clone, flag(arg(a, 0)) | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    try(pid, "clone");
    escaped("made");
}
static void a_clone3(char **a) {
    uint64_t arguments[8] = {(uint64_t)flag(arg(a, 0)), 0, 0, 0, SIGCHLD, 0, 0, 0};
    long pid = syscall(SYS_clone3, arguments, sizeof arguments);
    if (pid == 0) _exit(0);
    try(pid, "clone3");
    escaped("made");
}
static void a_setns(char **a) {
    char path[128];
    snprintf(path, sizeof path, "/proc/%s/ns/%s", arg(a, 0), arg(a, 1));
    int fd = (int)try(open(path, O_RDONLY), "open");
    try(setns(fd, 0), "setns");
    escaped("entered");
}

/* ---- rights ---- */

static void a_setuid_program(char **a) {
    int hold[2];
    try(pipe(hold), "pipe");
    pid_t child = fork();
    if (child == 0) {
        dup2(hold[0], 0);
        int null = open("/dev/null", O_WRONLY);
        dup2(null, 1);
        dup2(null, 2);
        execv(arg(a, 0), a);
        _exit(126);
    }
    char path[64], text[4096];
    int effective = -1, real = -1;
    for (int i = 0; i < 20; i++) {
        usleep(20000);
        snprintf(path, sizeof path, "/proc/%d/status", child);
        int fd = open(path, O_RDONLY);
        long got = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        text[got < 0 ? 0 : got] = 0;
        char *line = strstr(text, "\nUid:");
        if (line && sscanf(line, "\nUid:\t%d\t%d", &real, &effective) == 2 && real != effective) break;
    }
    kill(child, SIGKILL);
    int status;
    waitpid(child, &status, 0);
    if (effective >= 0 && effective != real) escaped("runs as %d, started by %d", effective, real);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 126) stopped("it cannot be run");
    stopped("it runs as %d", effective);
}
static void a_wait_here(char **a) {
    (void)a;
    char byte;
    if (read(0, &byte, 1) < 0) _exit(1);
    _exit(0);
}
static void a_make_setuid(char **a) {
    char path[4096];
    snprintf(path, sizeof path, "%s/made-setuid", arg(a, 0));
    unlink(path);
    int fd = (int)try(open(path, O_WRONLY | O_CREAT | O_EXCL, 0755), "open");
    try(fchown(fd, 0, 0), "fchown");
    try(fchmod(fd, 04755), "fchmod");
    escaped("a setuid file of user 0");
}
static void a_file_capabilities(char **a) {
    char path[4096];
    snprintf(path, sizeof path, "%s/made-capable", arg(a, 0));
    unlink(path);
    try(open(path, O_WRONLY | O_CREAT | O_EXCL, 0755), "open");
    uint32_t data[5] = {0x02000000 | 1, 1u << CAP_SYS_ADMIN, 0, 0, 0};
    try(setxattr(path, "security.capability", data, sizeof data, 0), "setxattr");
    escaped("a file with capabilities");
}
static void a_capset(char **a) {
    (void)a;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    try(syscall(SYS_capget, &header, data), "capget");
    data[0].permitted |= 1u << CAP_SYS_ADMIN;
    data[0].effective |= 1u << CAP_SYS_ADMIN;
    try(syscall(SYS_capset, &header, data), "capset");
    escaped("CAP_SYS_ADMIN");
}
static void a_ambient(char **a) {
    (void)a;
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    try(syscall(SYS_capget, &header, data), "capget");
    data[0].inheritable |= data[0].permitted & (1u << CAP_CHOWN);
    syscall(SYS_capset, &header, data);
    try(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), "PR_CAP_AMBIENT_RAISE");
    escaped("raised");
}
static void a_setgroups(char **a) {
    (void)a;
    gid_t none[1] = {0};
    try(syscall(SYS_setgroups, 1, none), "setgroups");
    escaped("in group 0");
}
static void a_setuid(char **a) {
    try(setresuid(number(a, 0), number(a, 0), -1), "setresuid");
    escaped("is user %s", a[0]);
}

/* ---- kernel ---- */

static void a_add_key(char **a) {
    (void)a;
    try(syscall(SYS_add_key, "user", low_name, "x", 1, -3), "add_key");
    escaped("added");
}
static void a_keyctl(char **a) {
    char text[256] = "";
    long key = try(syscall(SYS_keyctl, 10 /* SEARCH */, -3, "user", arg(a, 0), 0), "keyctl");
    try(syscall(SYS_keyctl, 11 /* READ */, key, text, sizeof text - 1), "keyctl");
    escaped("read the key");
}
static void a_request_key(char **a) {
    try(syscall(SYS_request_key, "user", arg(a, 0), NULL, 0), "request_key");
    escaped("found");
}
static void a_io_uring(char **a) {
    (void)a;
    char parameters[256] = {0};
    try(syscall(SYS_io_uring_setup, 2, parameters), "io_uring_setup");
    escaped("made");
}
static void a_bpf(char **a) {
    (void)a;
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = attr.value_size = 4;
    attr.max_entries = 1;
    try(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr), "bpf");
    escaped("a map");
}
static void a_perf(char **a) {
    (void)a;
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.type = PERF_TYPE_SOFTWARE;
    attr.size = sizeof attr;
    attr.config = PERF_COUNT_SW_TASK_CLOCK;
    attr.exclude_kernel = attr.exclude_hv = 1;
    try(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0), "perf_event_open");
    escaped("opened");
}
static void a_userfaultfd(char **a) {
    (void)a;
    try(syscall(SYS_userfaultfd, O_CLOEXEC | 1 /* UFFD_USER_MODE_ONLY */), "userfaultfd");
    escaped("opened");
}
static void a_fanotify(char **a) {
    (void)a;
    try(syscall(SYS_fanotify_init, 0, 0), "fanotify_init");
    escaped("opened");
}
/* All of these are refused by the kernel too, later and with another error. */
static void a_init_module(char **a) { (void)a; reached(syscall(SYS_init_module, NULL, 0UL, ""), "init_module"); }
static void a_finit_module(char **a) { (void)a; reached(syscall(SYS_finit_module, -1, "", 0), "finit_module"); }
static void a_delete_module(char **a) {
    (void)a;
    reached(syscall(SYS_delete_module, "lazarus_is_no_module", O_NONBLOCK), "delete_module");
}
static void a_kexec(char **a) { (void)a; reached(syscall(SYS_kexec_load, 0, 1UL << 20, NULL, ~0UL), "kexec_load"); }
static void a_kexec_file(char **a) {
    (void)a;
    reached(syscall(SYS_kexec_file_load, -1, -1, 0UL, "", ~0UL), "kexec_file_load");
}
static void a_reboot(char **a) { (void)a; reached(syscall(SYS_reboot, 0, 0, 0, NULL), "reboot"); }
static void a_swapon(char **a) { (void)a; reached(syscall(SYS_swapon, "/nonexistent/swap", 0), "swapon"); }
static void a_swapoff(char **a) { (void)a; reached(syscall(SYS_swapoff, "/nonexistent/swap"), "swapoff"); }
static void a_acct(char **a) { (void)a; reached(syscall(SYS_acct, "/nonexistent/acct"), "acct"); }
static void a_quotactl(char **a) {
    /* Quotas on, of a format that is none: the right is asked for first. */
    int at = (int)try(open(arg(a, 0), O_RDONLY), "open");
    reached(syscall(443 /* quotactl_fd */, at, 0x800002 << 8, 99, "/nonexistent"), "quotactl_fd");
}
static void a_settimeofday(char **a) {
    (void)a;
    struct timezone zone = {100000, 0};
    reached(syscall(SYS_settimeofday, NULL, &zone), "settimeofday");
}
static void a_clock_adjtime(char **a) {
    (void)a;
    struct timex t = {.modes = ADJ_TICK, .tick = 1};
    reached(syscall(SYS_clock_adjtime, CLOCK_REALTIME, &t), "clock_adjtime");
}
static void a_adjtimex(char **a) {
    (void)a;
    struct timex t = {.modes = ADJ_TICK, .tick = 1};
    reached(syscall(SYS_adjtimex, &t), "adjtimex");
}
static void a_sethostname(char **a) { (void)a; reached(syscall(SYS_sethostname, "x", -1), "sethostname"); }
static void a_setdomainname(char **a) { (void)a; reached(syscall(SYS_setdomainname, "x", -1), "setdomainname"); }
static void a_lookup_dcookie(char **a) { (void)a; reached(syscall(212, 1UL, NULL, 0UL), "lookup_dcookie"); }
static void a_iopl(char **a) {
    (void)a;
#ifdef SYS_iopl
    reached(syscall(SYS_iopl, 3), "iopl");
#else
    stopped("ENOSYS: not on this architecture");
#endif
}
static void a_ioperm(char **a) {
    (void)a;
#ifdef SYS_ioperm
    reached(syscall(SYS_ioperm, 0x80, 1, 1), "ioperm");
#else
    stopped("ENOSYS: not on this architecture");
#endif
}
static void a_modify_ldt(char **a) {
    (void)a;
#ifdef SYS_modify_ldt
    char text[64];
    reached(syscall(SYS_modify_ldt, 0, text, sizeof text), "modify_ldt");
#else
    stopped("ENOSYS: not on this architecture");
#endif
}
static void a_kcmp(char **a) {
    try(syscall(SYS_kcmp, number(a, 0), number(a, 0), 0, 0, 0), "kcmp");
    escaped("compared");
}
static void a_vhangup_like(char **a) { (void)a; reached(syscall(SYS_syslog, 3, (char[64]){0}, 64), "syslog"); }
static void a_personality(char **a) {
    try(personality(strtoul(arg(a, 0), NULL, 0)), "personality");
    escaped("set");
}
static void a_other_abi(char **a) {
#ifdef __x86_64__
    long result;
    if (!strcmp(arg(a, 0), "i386")) {
        __asm__ volatile("int $0x80"
                         : "=a"(result)
                         : "a"(286L), "b"((long)low_type), "c"((long)low_name), "d"((long)low_text), "S"(1L), "D"(-3L)
                         : "memory", "cc", "r8", "r9", "r10", "r11");
        result = (int)result;
        if (result < 0) stopped("%s from add_key", errno_name((int)-result));
    } else {
        try(syscall(0x40000000 | SYS_add_key, low_type, low_name, low_text, 1, -3), "add_key");
    }
    escaped("a key was added");
#else
    (void)a;
    stopped("ENOSYS: not on this architecture");
#endif
}

/* ---- sockets ---- */

static void a_socket(char **a) {
    try(socket(number(a, 0), number(a, 1), number(a, 2)), "socket");
    escaped("made");
}
static void connected(int fd, const struct sockaddr *to, socklen_t length) {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (connect(fd, to, length) < 0) {
        if (errno != EINPROGRESS && errno != EAGAIN) stopped("%s from connect", errno_name(errno));
        struct pollfd wait = {fd, POLLOUT, 0};
        if (poll(&wait, 1, 1500) <= 0) stopped("no answer");
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) stopped("%s from connect", errno_name(error));
    }
    escaped("connected");
}
static socklen_t internet(struct sockaddr_storage *to, const char *host, int port) {
    memset(to, 0, sizeof *to);
    struct sockaddr_in *v4 = (void *)to;
    struct sockaddr_in6 *v6 = (void *)to;
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        return sizeof *v4;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        return sizeof *v6;
    }
    fprintf(stderr, "no address: %s\n", host);
    _exit(2);
}
static void a_tcp(char **a) {
    struct sockaddr_storage to;
    socklen_t length = internet(&to, arg(a, 0), number(a, 1));
    int fd = (int)try(socket(to.ss_family, SOCK_STREAM, 0), "socket");
    connected(fd, (void *)&to, length);
}
static void a_udp(char **a) {
    struct sockaddr_storage to;
    char answer[64];
    socklen_t length = internet(&to, arg(a, 0), number(a, 1));
    int fd = (int)try(socket(to.ss_family, SOCK_DGRAM, 0), "socket");
    try(connect(fd, (void *)&to, length), "connect");
    try(send(fd, "hello", 5, 0), "send");
    struct pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, 1000) <= 0) stopped("no answer");
    try(recv(fd, answer, sizeof answer, 0), "recv");
    escaped("answered");
}
static socklen_t local(struct sockaddr_un *to, const char *name, int abstract) {
    memset(to, 0, sizeof *to);
    to->sun_family = AF_UNIX;
    strncpy(to->sun_path + abstract, name, sizeof to->sun_path - 2);
    return offsetof(struct sockaddr_un, sun_path) + abstract + strlen(name);
}
static void a_unix(char **a) {
    struct sockaddr_un to;
    /* A path of any length, through a descriptor of its directory. */
    char directory[4096], path[64];
    snprintf(directory, sizeof directory, "%s", arg(a, 0));
    char *slash = strrchr(directory, '/');
    if (!slash) stopped("no path");
    *slash = 0;
    int at = (int)try(open(directory, O_PATH), "open of its directory");
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at, slash + 1);
    socklen_t length = local(&to, path, 0);
    connected((int)try(socket(AF_UNIX, SOCK_STREAM, 0), "socket"), (void *)&to, length + 1);
}
static void a_abstract(char **a) {
    struct sockaddr_un to;
    socklen_t length = local(&to, arg(a, 0), 1);
    connected((int)try(socket(AF_UNIX, SOCK_STREAM, 0), "socket"), (void *)&to, length);
}
static void a_abstract_dgram(char **a) {
    struct sockaddr_un to;
    socklen_t length = local(&to, arg(a, 0), 1);
    int fd = (int)try(socket(AF_UNIX, SOCK_DGRAM, 0), "socket");
    try(sendto(fd, "x", 1, 0, (void *)&to, length), "sendto");
    escaped("sent");
}
static void a_listen(char **a) {
    int fd = (int)try(socket(AF_INET, SOCK_STREAM, 0), "socket");
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(number(a, 0))};
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    try(bind(fd, (void *)&at, sizeof at), "bind");
    try(listen(fd, 4), "listen");
    struct pollfd wait = {fd, POLLIN, 0};
    if (poll(&wait, 1, 700) <= 0) stopped("nobody of the host comes");
    escaped("somebody of the host came");
}
static void a_interface(char **a) {
    struct ifaddrs *list;
    try(getifaddrs(&list), "getifaddrs");
    char text[64];
    for (struct ifaddrs *i = list; i; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET) continue;
        inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text, sizeof text);
        if (!strcmp(text, arg(a, 0))) escaped("%s is at %s", text, i->ifa_name);
    }
    stopped("not seen");
}

/* ---- devices, terminals, cores ---- */

static void a_mknod(char **a) {
    char path[4096];
    snprintf(path, sizeof path, "%s/made-device", arg(a, 0));
    unlink(path);
    mode_t kind = !strcmp(arg(a, 1), "b") ? S_IFBLK : S_IFCHR;
    try(mknod(path, kind | 0600, makedev(number(a, 2), number(a, 3))), "mknod");
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    int e = errno;
    unlink(path);
    if (fd < 0) stopped("made, but %s from open", errno_name(e));
    escaped("made and opened");
}
static void a_open(char **a) {
    try(open(arg(a, 0), O_RDONLY | O_NONBLOCK | O_NOCTTY), "open");
    escaped("opened");
}
static int terminal(void) {
    int master = (int)try(posix_openpt(O_RDWR | O_NOCTTY), "posix_openpt");
    try(grantpt(master), "grantpt");
    try(unlockpt(master), "unlockpt");
    setsid();
    int slave = (int)try(open(ptsname(master), O_RDWR), "open of the terminal");
    ioctl(slave, TIOCSCTTY, 0);
    return slave;
}
static void a_tiocsti(char **a) {
    (void)a;
    try(ioctl(terminal(), TIOCSTI, "x"), "TIOCSTI");
    escaped("a character was typed");
}
static void a_tioclinux(char **a) {
    (void)a;
    char paste = 3;
    reached(ioctl(terminal(), TIOCLINUX, &paste), "TIOCLINUX");
}
static void a_tiocsetd(char **a) {
    (void)a;
    int discipline = 0;
    try(ioctl(terminal(), TIOCSETD, &discipline), "TIOCSETD");
    escaped("set");
}
static void a_core(char **a) {
    struct rlimit most;
    try(getrlimit(RLIMIT_CORE, &most), "getrlimit");
    most.rlim_cur = most.rlim_max;
    if (most.rlim_max == 0) {
        most.rlim_cur = most.rlim_max = RLIM_INFINITY;
        try(setrlimit(RLIMIT_CORE, &most), "raising RLIMIT_CORE from 0");
    }
    try(setrlimit(RLIMIT_CORE, &most), "setrlimit");
    try(chdir(arg(a, 0)), "chdir");
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, 1);
        abort();
    }
    int status;
    waitpid(child, &status, 0);
    char name[64];
    snprintf(name, sizeof name, "core.%d", child);
    unlink(name);
    unlink("core");
    if (WIFSIGNALED(status) && WCOREDUMP(status)) escaped("a core file was made");
    stopped("no core file");
}

/* ---- System V and POSIX IPC ---- */

static void a_shm(char **a) {
    int id = (int)try(shmget(number(a, 0), 0, 0), "shmget");
    char *text = shmat(id, NULL, SHM_RDONLY);
    if (text == (void *)-1) stopped("%s from shmat", errno_name(errno));
    escaped("attached: %.20s", text);
}
static void a_shm_by_id(char **a) {
    char *text = shmat(number(a, 0), NULL, SHM_RDONLY);
    if (text == (void *)-1) stopped("%s from shmat", errno_name(errno));
    if (strncmp(text, "treasure", 8)) stopped("another segment");
    escaped("attached");
}
static void a_msg(char **a) { try(msgget(number(a, 0), 0), "msgget"); escaped("opened"); }
static void a_sem(char **a) { try(semget(number(a, 0), 0, 0), "semget"); escaped("opened"); }
static void a_mq(char **a) { try(syscall(SYS_mq_open, arg(a, 0), O_RDONLY, 0, NULL), "mq_open"); escaped("opened"); }

static int m_ipc_make(char **a) {
    umask(0);
    int key = number(a, 0), id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0666);
    char *text = id < 0 ? (void *)-1 : shmat(id, NULL, 0), path[128];
    if (text == (void *)-1) { perror("shm"); return 1; }
    strcpy(text, "treasure of the host");
    if (msgget(key, IPC_CREAT | IPC_EXCL | 0666) < 0) { perror("msgget"); return 1; }
    if (semget(key, 1, IPC_CREAT | IPC_EXCL | 0666) < 0) { perror("semget"); return 1; }
    if (syscall(SYS_mq_open, arg(a, 1), O_CREAT | O_EXCL | O_RDWR, 0666, NULL) < 0) { perror("mq_open"); return 1; }
    snprintf(path, sizeof path, "/dev/shm/%s", a[1]);
    int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0666);
    if (fd < 0 || write(fd, text, 20) != 20) { perror(path); return 1; }
    printf("%d\n", id);
    return 0;
}
static int m_ipc_remove(char **a) {
    int key = number(a, 0);
    char path[128];
    shmctl(shmget(key, 0, 0), IPC_RMID, NULL);
    msgctl(msgget(key, 0), IPC_RMID, NULL);
    semctl(semget(key, 0, 0), 0, IPC_RMID);
    syscall(SYS_mq_unlink, arg(a, 1));
    snprintf(path, sizeof path, "/dev/shm/%s", a[1]);
    unlink(path);
    return 0;
}

/* ---- a process of the host that may be attacked ---- */

static int victim_file = -1;
static void hit(int signal) {
    (void)signal;
    if (write(victim_file, "!", 1) < 0) _exit(1);
}
static int m_victim(char **a) {
    victim_file = open(arg(a, 0), O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (victim_file < 0) { perror(a[0]); return 1; }
    strncpy(treasure, arg(a, 1), sizeof treasure - 1);
    prctl(PR_SET_DUMPABLE, 1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGUSR1, hit);
    signal(SIGIO, hit);
    if (write(victim_file, ".", 1) < 0) return 1;
    for (;;) pause();
}

/* ---- looking everywhere ---- */

static char *needles[32];
static size_t needle_lengths[32];
static int needle_count;
static FILE *found;

static void look_at(const char *text, size_t length, const char *format, ...) {
    for (int i = 0; i < needle_count; i++) {
        if (!memmem(text, length, needles[i], needle_lengths[i])) continue;
        va_list arguments;
        va_start(arguments, format);
        fprintf(found, "%d\t", i);
        vfprintf(found, format, arguments);
        fputc('\n', found);
        va_end(arguments);
    }
}
static void look_in_file(const char *path) {
    static char text[(1 << 20) + 1];
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) return;
    long got, size = 0;
    size_t kept = 0;
    /* Pieces overlap by what a needle may be long. */
    while (size < (16 << 20) && (got = read(fd, text + kept, sizeof text - kept)) > 0) {
        look_at(text, kept + got, "%s", path);
        size += got;
        size_t all = kept + got;
        kept = all < 256 ? all : 256;
        memmove(text, text + all - kept, kept);
    }
    close(fd);
}
static void look_in_link(const char *path) {
    char target[4096];
    long n = readlink(path, target, sizeof target);
    if (n > 0) look_at(target, n, "%s as a link", path);
}
static void look_below(const char *directory, int depth) {
    DIR *dir = depth < 40 ? opendir(directory) : NULL;
    if (!dir) return;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[8192];
        struct stat s;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", strcmp(directory, "/") ? directory : "", e->d_name);
        look_at(e->d_name, strlen(e->d_name), "%s as a name", path);
        /* The system's own files, and what is looked at in its own way. */
        static const char *const not[] = {"/proc", "/sys", "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/opt", NULL};
        int skip = 0;
        for (int i = 0; not[i]; i++) skip |= !strcmp(path, not[i]);
        if (skip || lstat(path, &s) < 0) continue;
        if (S_ISLNK(s.st_mode)) look_in_link(path);
        if (S_ISREG(s.st_mode)) look_in_file(path);
        if (S_ISDIR(s.st_mode)) look_below(path, depth + 1);
    }
    closedir(dir);
}
static void look_in_memory(int pid) {
    char path[64], line[512];
    static char text[1 << 16];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "re");
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDONLY | O_CLOEXEC);
    while (maps && mem >= 0 && fgets(line, sizeof line, maps)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx rw", &from, &to) != 2) continue;
        for (; from < to; from += sizeof text) {
            long got = pread(mem, text, sizeof text, (off_t)from);
            if (got > 0) look_at(text, got, "/proc/%d/mem", pid);
        }
    }
    if (maps) fclose(maps);
    if (mem >= 0) close(mem);
}
/* `inside`: in a cell, where everything that can be opened may be. */
static void look_at_process(int pid, int inside) {
    static const char *const files[] = {"environ", "cmdline", "comm", "mountinfo", "status", "stack", "io", NULL};
    static const char *const links[] = {"cwd", "root", "exe", NULL};
    char path[512];
    for (int i = 0; files[i]; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        look_in_file(path);
    }
    for (int i = 0; links[i]; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
        look_in_link(path);
    }
    for (int fd = 0; fd < 256; fd++) {
        struct stat s;
        snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
        look_in_link(path);
        if (stat(path, &s) == 0 && S_ISREG(s.st_mode)) look_in_file(path);
        /* This process has opened what it looks at. */
        if (inside && pid != getpid() && stat(path, &s) == 0 && S_ISDIR(s.st_mode)) look_below(path, 36);
    }
    if (inside && pid != getpid() && pid != getppid()) look_in_memory(pid);
}
static int from_inside(int pid, void *nothing) {
    (void)nothing;
    look_at_process(pid, 1);
    return 0;
}
static void look_at_output(const char *command) {
    static char text[1 << 16];
    FILE *pipe = popen(command, "re");
    size_t got = pipe ? fread(text, 1, sizeof text, pipe) : 0;
    look_at(text, got, "the output of %s", command);
    if (pipe) pclose(pipe);
}
static void look_in_keyrings(void) {
    static char text[1 << 16], keys[1 << 14];
    static const int known[] = {-1, -2, -3, -4, -5, -6, -7, -8};
    for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
        long got = syscall(SYS_keyctl, 11, known[i], keys, sizeof keys);
        for (long at = 0; at + 4 <= got; at += 4) {
            int key;
            memcpy(&key, keys + at, 4);
            long length = syscall(SYS_keyctl, 11, key, text, sizeof text);
            if (length > 0) look_at(text, length, "key %d", key);
        }
    }
    look_in_file("/proc/keys");
}
/* search FILE WHERE WHOSE NEEDLE…: looks wherever a process can look, below the
 * directories WHERE (colons between) and at the processes WHOSE (commas between,
 * or `all`), for needles in hexadecimal, and writes `NUMBER<tab>where` to FILE.
 * Nothing of it is in the search's own arguments or memory as it is sought. */
static int m_search(char **a) {
    found = fopen(arg(a, 0), "we");
    if (!found) { perror(a[0]); return 1; }
    arg(a, 2);
    for (char **hex = a + 3; *hex && needle_count < 32; hex++, needle_count++) {
        size_t length = strlen(*hex) / 2;
        char *needle = malloc(length + 1);
        for (size_t i = 0; i < length; i++) {
            unsigned byte;
            sscanf(*hex + 2 * i, "%2x", &byte);
            needle[i] = (char)byte;
        }
        needles[needle_count] = needle;
        needle_lengths[needle_count] = length;
    }
    if (!strcmp(a[2], "all")) {
        each_process(from_inside, NULL);
    } else {
        look_at_process(getpid(), 0);
        for (char *pid = strtok(a[2], ","); pid; pid = strtok(NULL, ",")) look_at_process(atoi(pid), 0);
    }
    look_in_keyrings();
    look_at_output("env 2>/dev/null");
    look_at_output("git config --list --show-origin 2>/dev/null");
    look_at_output("printf 'protocol=http\\nhost=127.0.0.1\\n\\n' | GIT_TERMINAL_PROMPT=0 git credential fill 2>/dev/null");
    for (char *where = strtok(a[1], ":"); where; where = strtok(NULL, ":")) look_below(where, 0);
    fclose(found);
    return 0;
}

/* ---- what does not want to end ---- */

static volatile sig_atomic_t asked;
static void bear(int signal) { asked = signal; }
/* linger MARK KIND: a process of that kind, for ever. */
static int m_linger(char **a) {
    const char *kind = arg(a, 1);
    if (!strcmp(kind, "deaf"))
        for (int i = 1; i < 65; i++) signal(i, SIG_IGN);
    if (!strcmp(kind, "stopped")) raise(SIGSTOP);
    if (!strcmp(kind, "hydra")) {
        signal(SIGTERM, bear);
        signal(SIGHUP, bear);
        signal(SIGCHLD, SIG_IGN);
        for (int heads = 0; heads < 64;) {
            pause();
            if (asked) {
                asked = 0;
                for (int i = 0; i < 2 && heads < 64; i++, heads++)
                    if (fork() == 0) heads = 64;
            }
        }
    }
    if (!strcmp(kind, "runner")) {
        /* Never the same number for long. */
        for (;;) {
            if (fork() > 0) _exit(0);
            setsid();
            usleep(500);
        }
    }
    if (!strcmp(kind, "thread")) mlockall(MCL_CURRENT);
    for (;;) pause();
}
static void leave(char *mark, const char *kind, int away) {
    if (fork()) return;
    if (away) {
        setsid();
        if (fork()) _exit(0);
        if (chdir("/")) _exit(1);
    }
    execl("/proc/self/exe", "attempts", "linger", mark, kind, NULL);
    _exit(127);
}
/* residue MARK DIR: leaves everything behind that there is to leave, and goes on. */
static int m_residue(char **a) {
    char *mark = (char *)arg(a, 0), path[4096];
    static const char *const kinds[] = {"deaf", "stopped", "hydra", "runner", "thread", NULL};
    umask(0);
    for (int i = 0; kinds[i]; i++) {
        leave(mark, kinds[i], 0);
        leave(mark, kinds[i], 1);
    }
    for (int i = 0; i < 100; i++) leave(mark, "one of many", i % 2);
    static const char *const places[] = {"/tmp", "/dev/shm", "/var/tmp", NULL};
    for (int i = 0; places[i]; i++) {
        snprintf(path, sizeof path, "%s/%s", places[i], mark);
        close(open(path, O_CREAT | O_RDWR, 0666));
    }
    int key = number(a, 2);
    shmget(key, 4096, IPC_CREAT | 0666);
    msgget(key, IPC_CREAT | 0666);
    semget(key, 1, IPC_CREAT | 0666);
    syscall(SYS_mq_open, mark, O_CREAT | O_RDWR, 0666, NULL);
    struct sockaddr_un to;
    socklen_t length = local(&to, mark, 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (void *)&to, length) == 0) listen(fd, 1);
    /* Links into the host, for whoever tidies up after the cell. */
    snprintf(path, sizeof path, "%s/link", getenv("HOME"));
    if (symlink(arg(a, 1), path) < 0) perror(path);
    if (symlink(a[1], "link") < 0) perror("link");
    snprintf(path, sizeof path, "%s/ready", getenv("HOME"));
    close(open(path, O_CREAT | O_RDWR, 0666));
    for (;;) {
        signal(SIGTERM, SIG_IGN);
        sleep(1);
    }
}

struct named { const char *name; void (*run)(char **); };
static const struct named ATTEMPTS[] = {
    {"read", a_read}, {"list", a_list}, {"create", a_create}, {"write", a_write}, {"mkdir", a_mkdir},
    {"rename", a_rename}, {"chmod", a_chmod}, {"symlink-read", a_symlink_read},
    {"symlink-create", a_symlink_create}, {"hardlink", a_hardlink}, {"handle", a_handle}, {"chroot", a_chroot},
    {"descriptors", a_descriptors}, {"descriptor-reopen", a_descriptor_reopen},
    {"overwrite-program", a_overwrite_program}, {"proc-roots", a_proc_roots}, {"see", a_see},
    {"ptrace", a_ptrace}, {"vm-read", a_vm_read}, {"vm-write", a_vm_write}, {"proc-file", a_proc_file},
    {"pidfd-getfd", a_pidfd_getfd}, {"kill", a_kill}, {"pidfd-signal", a_pidfd_signal}, {"sigio", a_sigio},
    {"prlimit", a_prlimit}, {"priority", a_priority}, {"affinity", a_affinity}, {"mount", a_mount},
    {"bind", a_bind}, {"remount", a_remount}, {"umount", a_umount}, {"fsopen", a_fsopen}, {"fspick", a_fspick},
    {"open-tree", a_open_tree}, {"move-mount", a_move_mount}, {"mount-setattr", a_mount_setattr},
    {"pivot-root", a_pivot_root}, {"unshare", a_unshare}, {"clone", a_clone}, {"clone3", a_clone3},
    {"setns", a_setns}, {"setuid-program", a_setuid_program}, {"wait-here", a_wait_here},
    {"make-setuid", a_make_setuid}, {"file-capabilities", a_file_capabilities}, {"capset", a_capset},
    {"ambient", a_ambient}, {"setgroups", a_setgroups}, {"setuid", a_setuid}, {"add-key", a_add_key},
    {"keyctl", a_keyctl}, {"request-key", a_request_key}, {"io-uring", a_io_uring}, {"bpf", a_bpf},
    {"perf", a_perf}, {"userfaultfd", a_userfaultfd}, {"fanotify", a_fanotify}, {"init-module", a_init_module},
    {"finit-module", a_finit_module}, {"delete-module", a_delete_module}, {"kexec", a_kexec},
    {"kexec-file", a_kexec_file}, {"reboot", a_reboot}, {"swapon", a_swapon}, {"swapoff", a_swapoff},
    {"acct", a_acct}, {"quotactl", a_quotactl}, {"settimeofday", a_settimeofday},
    {"clock-adjtime", a_clock_adjtime}, {"adjtimex", a_adjtimex}, {"sethostname", a_sethostname},
    {"setdomainname", a_setdomainname}, {"lookup-dcookie", a_lookup_dcookie}, {"iopl", a_iopl},
    {"ioperm", a_ioperm}, {"modify-ldt", a_modify_ldt}, {"kcmp", a_kcmp}, {"syslog", a_vhangup_like},
    {"personality", a_personality}, {"other-abi", a_other_abi}, {"socket", a_socket}, {"tcp", a_tcp},
    {"udp", a_udp}, {"unix", a_unix}, {"abstract", a_abstract}, {"abstract-dgram", a_abstract_dgram},
    {"listen", a_listen}, {"interface", a_interface}, {"mknod", a_mknod}, {"open", a_open},
    {"tiocsti", a_tiocsti}, {"tioclinux", a_tioclinux}, {"tiocsetd", a_tiocsetd}, {"core", a_core},
    {"shm", a_shm}, {"shm-by-id", a_shm_by_id}, {"msg", a_msg}, {"sem", a_sem}, {"mq", a_mq},
};

static void run_one(char **words) {
    for (unsigned i = 0; i < sizeof ATTEMPTS / sizeof *ATTEMPTS; i++)
        if (!strcmp(ATTEMPTS[i].name, words[0])) ATTEMPTS[i].run(words + 1);
    fprintf(stderr, "no such attempt: %s\n", words[0]);
    _exit(2);
}

/* One line of a plan: its number, then the attempt's words, tabs between. */
static void make_attempt(const char *results, char *line) {
    char *words[16] = {0}, *number = strtok(line, "\t\n");
    int count = 0;
    for (char *word; number && count < 15 && (word = strtok(NULL, "\t\n"));) words[count++] = word;
    if (!count) return;
    int answer[2];
    if (pipe2(answer, O_CLOEXEC) < 0) return;
    pid_t child = fork();
    if (child == 0) {
        setsid();
        dup2(answer[1], 1);
        close(answer[0]);
        close(answer[1]);
        /* On the host each has mounts of its own, so that none is left there. */
        if (getenv("ATTEMPTS_ON_THE_HOST") && geteuid() == 0)
            /* Who may not do this may not mount either. */
            if (unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) _exit(4);
        run_one(words);
        _exit(5);
    }
    close(answer[1]);
    char said[1200] = "";
    struct pollfd wait = {answer[0], POLLIN, 0};
    long got = poll(&wait, 1, 4000) > 0 ? read(answer[0], said, sizeof said - 1) : 0;
    said[got > 0 ? got : 0] = 0;
    if (got <= 0 || kill(child, 0) == 0) usleep(1000);
    kill(-child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    close(answer[0]);
    if (got <= 0) {
        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) strcpy(said, "stopped\tkilled by the filter (SIGSYS)\n");
        else if (WIFSIGNALED(status)) sprintf(said, "broken\tended by signal %d\n", WTERMSIG(status));
        else sprintf(said, "broken\texited with %d\n", WEXITSTATUS(status));
    }
    FILE *file = fopen(results, "a");
    if (!file) { perror(results); _exit(1); }
    fprintf(file, "%s\t%s", number, said);
    fclose(file);
}

static int serve(const char *dir) {
    char plan[4096], results[4096], done[4096], line[8192];
    snprintf(plan, sizeof plan, "%s/plan", dir);
    snprintf(results, sizeof results, "%s/results", dir);
    snprintf(done, sizeof done, "%s/done", dir);
    FILE *file = NULL;
    for (int i = 0; i < 3000 && !(file = fopen(plan, "re")); i++) usleep(20000);
    if (!file) { perror(plan); return 1; }
    /* Read whole, so that no attempt finds its descriptor. */
    static char *lines[512];
    int count = 0;
    while (count < 512 && fgets(line, sizeof line, file)) lines[count++] = strdup(line);
    fclose(file);
    for (int i = 0; i < count; i++) make_attempt(results, lines[i]);
    file = fopen(done, "w");
    if (!file) { perror(done); return 1; }
    fclose(file);
    return 0;
}

/* ---- the stage: what a run of the suite finds on its host ---- */

static void fail(const char *what) { perror(what); _exit(99); }

static void loopback(int socket_, const char *name, const char *address) {
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    if (address) {
        struct sockaddr_in *at = (void *)&request.ifr_addr;
        at->sin_family = AF_INET;
        inet_pton(AF_INET, address, &at->sin_addr);
        if (ioctl(socket_, SIOCSIFADDR, &request) < 0) fail("SIOCSIFADDR");
    }
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(socket_, SIOCSIFFLAGS, &request) < 0) fail("SIOCSIFFLAGS");
}
static void loopback6(const char *address) {
    struct { struct in6_addr address; uint32_t prefix; int index; } request;
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);
    inet_pton(AF_INET6, address, &request.address);
    request.prefix = 128;
    request.index = (int)if_nametoindex("lo");
    if (fd < 0 || ioctl(fd, SIOCSIFADDR, &request) < 0) fail("SIOCSIFADDR of IPv6");
    close(fd);
}
static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) fail(path);
    close(fd);
}
static void own_user_namespace(uid_t inside) {
    char map[64];
    uid_t uid = getuid();
    gid_t gid = getgid();
    if (unshare(CLONE_NEWUSER) < 0) fail("unshare of the user");
    put("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "%u %u 1", inside, uid);
    put("/proc/self/uid_map", map);
    snprintf(map, sizeof map, "%u %u 1", inside, gid);
    put("/proc/self/gid_map", map);
}
/* DIR:TREE:…: makes DIR, which others cannot enter, one in which they find those
 * trees below it and nothing else. In mounts of its own. */
static void show(char *paths) {
    /* First: a tree can only be bound from where it is mounted in the same namespace. */
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("own mounts");
    char *trees[8] = {0}, *closed = strtok(paths, ":");
    int fds[8], count = 0;
    while (count < 8 && (trees[count] = strtok(NULL, ":"))) {
        if ((fds[count] = open(trees[count], O_PATH | O_DIRECTORY)) < 0) fail(trees[count]);
        count++;
    }
    if (mount("none", closed, "tmpfs", 0, "mode=755") < 0) fail(closed);
    for (int i = 0; i < count; i++) {
        char from[64];
        for (char *slash = trees[i] + strlen(closed) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
            *slash = 0;
            mkdir(trees[i], 0755);
        }
        mkdir(trees[i], 0755);
        snprintf(from, sizeof from, "/proc/self/fd/%d", fds[i]);
        if (mount(from, trees[i], NULL, MS_BIND | MS_REC, NULL) < 0) fail(trees[i]);
        close(fds[i]);
    }
}
/* PROGRAM: a host on which nobody may make user namespaces, and a setuid `bwrap`
 * that may make others. Takes root, so that setuid programs stay that. */
static void only_bwrap(const char *program) {
    char zero[4096];
    snprintf(zero, sizeof zero, "%s.zero", program);
    int fd = open(zero, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, "0\n", 2) != 2) fail(zero);
    close(fd);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("own mounts");
    if (mount(program, "/usr/bin/bwrap", NULL, MS_BIND, NULL) < 0) fail("a setuid bwrap");
    if (mount(zero, "/proc/sys/user/max_user_namespaces", NULL, MS_BIND, NULL) < 0) fail("no user namespaces");
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWUSER, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0) fail("a filter");
}
static void refuse(int call, int error) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) fail("a filter");
}
/* attempts stage [net] [uid=N] [key=NAME=VALUE] [open-root] [no-userns]
 *                [etc=COPY] [show=DIR:TREE:TREE] [only-bwrap=FILE] [mounts] [userns] [no-landlock] [no-seccomp] -- PROGRAM ARGUMENT…, in the order given. */
static int m_stage(char **a) {
    for (; *a && strcmp(*a, "--"); a++) {
        if (!strcmp(*a, "net")) {
            if (unshare(CLONE_NEWNET) < 0) fail("unshare of the network");
            int fd = socket(AF_INET, SOCK_DGRAM, 0);
            loopback(fd, "lo", NULL);
            loopback(fd, "lo:1", "192.168.77.1");
            loopback(fd, "lo:2", "169.254.169.254");
            loopback(fd, "lo:3", "10.77.0.1");
            close(fd);
            loopback6("fd00:77::1");
        } else if (!strncmp(*a, "uid=", 4)) {
            unsigned id = (unsigned)strtoul(*a + 4, NULL, 10);
            if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0) fail("taking a user");
            prctl(PR_SET_DUMPABLE, 1);
        } else if (!strncmp(*a, "key=", 4)) {
            char *value = strchr(*a + 4, '=');
            if (!value) return 98;
            *value++ = 0;
            if (syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL) < 0) fail("a keyring");
            long key = syscall(SYS_add_key, "user", *a + 4, value, strlen(value), -3);
            if (key < 0) fail("a key");
        } else if (!strcmp(*a, "open-root")) {
            int fd = open("/", O_RDONLY | O_DIRECTORY);
            if (fd < 0 || dup2(fd, 99) < 0) fail("descriptor 99");
        } else if (!strcmp(*a, "mounts")) {
            /* What is mounted from here on goes with its last process. */
            if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("own mounts");
            if (mount("none", "/run", "tmpfs", 0, "mode=755") < 0) fail("an own /run");
        } else if (!strncmp(*a, "etc=", 4)) {
            /* A copy of /etc in which files can be replaced, in mounts of its own. */
            if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) fail("own mounts");
            if (mount(*a + 4, "/etc", NULL, MS_BIND, NULL) < 0) fail("an own /etc");
        } else if (!strncmp(*a, "show=", 5)) {
            show(*a + 5);
        } else if (!strncmp(*a, "only-bwrap=", 11)) {
            only_bwrap(*a + 11);
        } else if (!strcmp(*a, "userns")) {
            own_user_namespace(0);
        } else if (!strcmp(*a, "no-userns")) {
            own_user_namespace(getuid());
            put("/proc/sys/user/max_user_namespaces", "0");
        } else if (!strcmp(*a, "no-landlock")) {
            refuse(SYS_landlock_create_ruleset, EOPNOTSUPP);
        } else if (!strcmp(*a, "no-seccomp")) {
            refuse(SYS_seccomp, ENOSYS);
        } else {
            fprintf(stderr, "no such stage: %s\n", *a);
            return 98;
        }
    }
    if (!*a || !a[1]) return 98;
    execvp(a[1], a + 1);
    fail(a[1]);
    return 99;
}

/* say SOCKET LINE: prints what is answered; 1 where nothing is, 2 where nobody listens. */
static int m_say(char **a) {
    char answer[65536];
    char directory[4096], path[64];
    struct sockaddr_un to;
    if (!a[0] || !a[1]) return 98;
    snprintf(directory, sizeof directory, "%s", a[0]);
    char *slash = strrchr(directory, '/');
    if (!slash) return 98;
    *slash = 0;
    int at = open(directory, O_PATH);
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", at, slash + 1);
    socklen_t length = local(&to, path, 0);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (at < 0 || fd < 0 || connect(fd, (void *)&to, length + 1) < 0) { perror("connect"); return 2; }
    signal(SIGPIPE, SIG_IGN);
    if (write(fd, a[1], strlen(a[1])) < 0 || write(fd, "\n", 1) < 0) perror("write");
    struct pollfd wait = {fd, POLLIN, 0};
    int heard = 0;
    while (poll(&wait, 1, 2000) > 0) {
        ssize_t read_ = read(fd, answer, sizeof answer);
        if (read_ <= 0) break;
        heard = 1;
        fwrite(answer, 1, (size_t)read_, stdout);
    }
    fflush(stdout);
    return !heard;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    if (!strcmp(argv[1], "say")) return m_say(argv + 2);
    if (!strcmp(argv[1], "serve") && argc == 3) return serve(argv[2]);
    if (!strcmp(argv[1], "victim")) return m_victim(argv + 2);
    if (!strcmp(argv[1], "ipc-make")) return m_ipc_make(argv + 2);
    if (!strcmp(argv[1], "ipc-remove")) return m_ipc_remove(argv + 2);
    if (!strcmp(argv[1], "stage")) return m_stage(argv + 2);
    if (!strcmp(argv[1], "search")) return m_search(argv + 2);
    if (!strcmp(argv[1], "linger")) return m_linger(argv + 2);
    if (!strcmp(argv[1], "residue")) return m_residue(argv + 2);
    /* As our own program does when it is started so: it waits. */
    if (!strcmp(argv[1], "cell-launch")) a_wait_here(argv + 2);
    run_one(argv + 1);
    return 0;
}
