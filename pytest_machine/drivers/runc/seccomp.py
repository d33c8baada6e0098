"""The system calls that a machine may make: Docker's default profile, and what a Docker host needs besides.

The list follows Docker's (``seccomp/default.json`` of github.com/moby/profiles, for a container that has the
capabilities of a machine's root). A machine also mounts, pivots its root, and makes and enters namespaces. It goes
without what Docker gives to those who have a capability, where the capability would count for the whole computer: other
kernels and modules, clocks, swap, accounting, quotas, the kernel's log, files by handle, tracing by ``perf`` and BPF.

A call that is not listed does not exist (``ENOSYS``), so that programs fall back as on an older kernel; Docker's own
runc passes over the keyring only so. Names that the host's libseccomp does not know are passed over by runc.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

_ALLOWED = """
accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown chown32 chroot
clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
clock_nanosleep_time64 clone clone3 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve
execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_init fanotify_mark fchdir fchmod
fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr
fsconfig fsetxattr fsmount fsopen fspick fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat get_mempolicy get_robust_list get_thread_area
getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer
getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64
io_setup io_submit ioctl ioprio_get ioprio_set ipc kcmp kill landlock_add_rule landlock_create_ruleset
landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek
lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore
mkdir mkdirat mlock mlock2 mlockall mmap mmap2 modify_ldt mount mount_setattr move_mount mprotect mq_getsetattr
mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink mremap mseal msgctl
msgget msgrcv msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat _newselect open open_tree
open_tree_attr openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pivot_root pkey_alloc pkey_free
pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64 process_madvise process_mrelease
process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy set_mempolicy_home_node
set_robust_list set_thread_area set_tid_address setdomainname setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 sethostname setitimer setns setpgid setpriority setregid setregid32 setresgid setresgid32
setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl
shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn splice stat stat64 statfs statfs64 statmount
statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask umount umount2 uname unlink unlinkat
unshare uretprobe utime utimensat utimensat_time64 utimes vfork vhangup vmsplice wait4 waitid waitpid write writev
"""

# Of single architectures; the others' libseccomp passes over them.
_ALLOWED_ELSEWHERE = """
arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush riscv_flush_icache riscv_hwprobe s390_pci_mmio_read
s390_pci_mmio_write s390_runtime_instr set_tls swapcontext sync_file_range2
"""

# What a program expects to be refused rather than absent.
_REFUSED = """
acct bpf clock_settime clock_settime64 create_module delete_module finit_module get_kernel_syms init_module ioperm iopl
kexec_file_load kexec_load lookup_dcookie nfsservctl open_by_handle_at perf_event_open query_module quotactl
quotactl_fd settimeofday stime swapoff swapon _sysctl sysfs syslog uselib userfaultfd ustat vm86 vm86old
"""

# Families of sockets, by their numbers in linux/socket.h. All below ALG (38) belong to a network namespace or are for
# the first one alone. ALG is the kernel's cryptography, VSOCK (40) the ports of the whole computer, NFC (39) and
# QIPCRTR (42) its hardware.
_FAMILIES_BELOW = 38
_FAMILIES = (41, 43, 44, 45)  # KCM, SMC, XDP, MCTP
# socketcall(2) of 32-bit programs hides the family behind a pointer, so it opens no sockets; socket(2), which they have
# had since Linux 4.3, does. libseccomp allows both where one is allowed, but compares some bits of a number before the
# whole number, if it was given the rule about some bits first.
_SOCKETCALL_OPENS = (1, 8)  # SYS_SOCKET, SYS_SOCKETPAIR
_SOCKETCALL_BITS = 0xFF

# personality(2): PER_LINUX, PER_LINUX32, each with UNAME26, and the question.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# Types of files, of the mode's S_IFMT bits. A block device's node is all that `mount` needs to show the host's own disk
# again, where root is the host's: groups' rules for devices count for those who open it, and the kernel has it open.
_S_IFMT, _S_IFBLK = 0o170000, 0o060000
_NO_DISK = (0, 0o010000, 0o020000, 0o100000, 0o140000)

_ARCHITECTURES = {
    "x86_64": ("X86_64", "X86", "X32"),
    "aarch64": ("AARCH64", "ARM"),
    "ppc64le": ("PPC64LE",),
    "s390x": ("S390X", "S390"),
    "riscv64": ("RISCV64",),
}


def profile(machine: str, *, userns: bool) -> dict[str, object]:
    """Return the OCI runtime's ``linux.seccomp`` for a processor, as ``uname -m`` names it."""
    # reboot(2) of a process namespace ends its own first process, and needs the capability there.
    # Without a user namespace, a Docker inside needs bpf(2) for its containers' devices on control groups of version 2.
    extra = ["mknod", "mknodat", "reboot"] if userns else ["bpf"]
    refused = [name for name in _REFUSED.split() if name not in extra]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        # Every kind of program that such a kernel runs: libseccomp kills those of a kind that is not listed.
        "architectures": [f"SCMP_ARCH_{name}" for name in _ARCHITECTURES.get(machine, ())],
        "syscalls": [
            *(
                _rule("socketcall", 0, _SOCKETCALL_BITS, "SCMP_CMP_MASKED_EQ", number, refuse=errno.EPERM)
                for number in _SOCKETCALL_OPENS
            ),
            {"names": [*_ALLOWED.split(), *_ALLOWED_ELSEWHERE.split(), *extra], "action": "SCMP_ACT_ALLOW"},
            {"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM},
            *_sockets(),
            *(_rule("personality", 0, value) for value in _PERSONALITIES),
            *([] if userns else _nodes()),
        ],
    }


def _sockets() -> Iterator[dict[str, object]]:
    for name in ("socket", "socketpair"):
        yield _rule(name, 0, _FAMILIES_BELOW, "SCMP_CMP_LT")
        for family in _FAMILIES:
            yield _rule(name, 0, family)


def _nodes() -> Iterator[dict[str, object]]:
    for name, index in (("mknod", 1), ("mknodat", 2)):
        for kind in _NO_DISK:
            yield _rule(name, index, _S_IFMT, "SCMP_CMP_MASKED_EQ", kind)
        yield _rule(name, index, _S_IFMT, "SCMP_CMP_MASKED_EQ", _S_IFBLK, refuse=errno.EPERM)


def _rule(
    name: str, index: int, value: int, compare: str = "SCMP_CMP_EQ", second: int | None = None, *, refuse: int = 0
) -> dict[str, object]:
    argument = {"index": index, "value": value, "op": compare} | ({} if second is None else {"valueTwo": second})
    action = {"action": "SCMP_ACT_ERRNO", "errnoRet": refuse} if refuse else {"action": "SCMP_ACT_ALLOW"}
    return {"names": [name], **action, "args": [argument]}
