# Holds packets back, for machines whose kernel has no netem: takes them from queues of NFQUEUE and lets them go later,
# at once, or with a wrong bit.
#
#   perl - pytest-machine-hold NOTE DELAY:JITTER:CORRUPT:REORDER:AGAIN... <this file, and behind it nft's script
#
# Seconds, seconds, and two chances. With AGAIN = 1 a packet is thrown away at once, and a copy of it sent in time.
#
# There is a chain `held_N` in nft's script for each class, which this fills with a jump to a queue of its own: by
# netlink, because nft can name the target of iptables that the kernel has, but not make a rule of it. Packets of a queue
# that nobody serves pass (`bypass`), so the end of this program, however it ends, is the end of what it does.
#
# Ready when it returns: then a child of its own goes on, whose pid is in NOTE, and one that was there before is gone.
# With an empty NOTE it only tries whether all of that can be done.
use strict;
use warnings;
use Errno qw(EBUSY EPERM);
use Fcntl qw(F_SETFL O_NONBLOCK);
use POSIX ();
use Socket qw(AF_INET AF_INET6 SOCK_RAW SOL_SOCKET SO_RCVBUF pack_sockaddr_in pack_sockaddr_in6);

# Debian's smallest perl has no Time::HiRes from trixie on, so the kernel is asked for its monotonic clock.
my %clock_gettime = (x86_64 => 228, aarch64 => 113, riscv64 => 113, i686 => 265, armv7l => 263, ppc64le => 246, s390x => 260);
my $clock_gettime = $clock_gettime{(POSIX::uname())[4]};

# Seconds, with a fraction.
sub now {
    my $spec = pack("l! l!", 0, 0);
    if (!defined $clock_gettime || syscall($clock_gettime, 1, $spec) != 0) { require Time::HiRes; return Time::HiRes::time() }
    my ($seconds, $nanoseconds) = unpack("l! l!", $spec);
    return $seconds + $nanoseconds / 1e9;
}
now();

my (undef, $note, @asked) = @ARGV;
my @classes = map { [split /:/] } @asked;

use constant {AF_NETLINK => 16, NETLINK_NETFILTER => 12, SOL_NETLINK => 270, NETLINK_NO_ENOBUFS => 5};
# From linux/netlink.h, linux/netfilter/nfnetlink.h, nfnetlink_queue.h and nf_tables.h.
use constant {REQUEST => 1, ACK => 4, CREATE => 0x400, APPEND => 0x800, NESTED => 0x8000, ERROR => 2};
use constant {BATCH_BEGIN => 0x10, BATCH_END => 0x11, NEW_RULE => 0xa06, NF_TABLES => 10, INET => 1};
use constant {PACKET => 0x300, VERDICT => 0x301, CONFIG => 0x302};
use constant {FAIL_OPEN => 1, WHOLE => 4, NF_DROP => 0, NF_ACCEPT => 1};
use constant {IPPROTO_RAW => 255, SO_MARK => 36, MARK => 0x70740001, SMALLEST_MTU => 1280};
# How many packets may wait; more pass at once.
use constant {LIMIT => 100_000, FIRST_QUEUE => 0x7074};

sub attribute { my ($type, $data) = @_; my $n = 4 + length $data; return pack("S S", $n, $type) . $data . "\0" x (-$n & 3) }

sub message {
    my ($type, $flags, $family, $resource, $body) = @_;
    return pack("L S S L L C C n", 20 + length $body, $type, $flags, 0, 0, $family, 0, $resource) . $body;
}

sub netlink {
    socket(my $socket, AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER) or die "netlink: $!\n";
    bind($socket, pack("S S L L", AF_NETLINK, 0, 0, 0)) or die "netlink: $!\n";
    return $socket;
}

# Sends messages, of which `count` ask for an acknowledgement; returns the first error's number, or 0.
sub ask {
    my ($socket, $messages, $count) = @_;
    defined send($socket, $messages, 0) or die "netlink: $!\n";
    while ($count) {
        defined recv($socket, my $said, 1 << 16, 0) or die "netlink: $!\n";
        while (length $said >= 20) {
            my ($length, $type, $error) = unpack("L S x10 l", $said);
            last if $length < 16;
            $said = substr($said, $length < length $said ? ($length + 3) & ~3 : $length);
            next if $type != ERROR;
            return -$error if $error;
            $count--;
        }
    }
    return 0;
}

sub told { my ($what, $error) = @_; return if !$error; local $! = $error; die "$what: $!\n" }

my $queues = netlink();
my (@numbers, %class_of);
my $number = FIRST_QUEUE;
for my $class (@classes) {
    # Those of the one before us are still its own.
    my $error;
    for (1 .. 4096) {
        $error = ask($queues, message(CONFIG, REQUEST | ACK, 0, ++$number, attribute(1, pack("C C n", 1, 0, 0))), 1);
        last unless $error == EBUSY || $error == EPERM;
    }
    told("a queue of packets", $error);
    # A packet's content is needed to spoil it, and then as it is on the wire; else a large one may stay in one piece.
    my $spoils = $class->[2] > 0 || $class->[4];
    my $mode = attribute(2, pack("N C", $spoils ? 0xffff : 0, $spoils ? 2 : 1)) . attribute(3, pack("N", LIMIT));
    my $flags = FAIL_OPEN | ($spoils || $class->[3] > 0 ? 0 : WHOLE);
    $mode .= attribute(4, pack("N", FAIL_OPEN | WHOLE)) . attribute(5, pack("N", $flags));
    told("a queue of packets", ask($queues, message(CONFIG, REQUEST | ACK, 0, $number, $mode), 1));
    push @numbers, $number;
    $class_of{$number} = $class;
}
setsockopt($queues, SOL_SOCKET, SO_RCVBUF, pack("i", 8 << 20));
setsockopt($queues, SOL_NETLINK, NETLINK_NO_ENOBUFS, pack("i", 1));

# Chains first, then at once what fills them.
open(my $nft, "|-", "nft", "-f", "-") or die "nft: $!\n";
print {$nft} <STDIN>;
close($nft) or die "nft failed\n";
my $rules = message(BATCH_BEGIN, REQUEST, 0, NF_TABLES, "");
for my $at (0 .. $#numbers) {
    # struct xt_NFQ_info_v3: queue, how many of them, 1 for bypass; padded to 8 bytes.
    my $target = attribute(1, "NFQUEUE\0") . attribute(2, pack("N", 3)) . attribute(3, pack("S4", $numbers[$at], 1, 1, 0));
    my $expression = attribute(1 | NESTED, attribute(1, "target\0") . attribute(2 | NESTED, $target));
    my $rule = attribute(1, "pytest_machine\0") . attribute(2, "held_$at\0") . attribute(4 | NESTED, $expression);
    $rules .= message(NEW_RULE, REQUEST | ACK | CREATE | APPEND, INET, 0, $rule);
}
$rules .= message(BATCH_END, REQUEST, 0, NF_TABLES, "");
told("the target NFQUEUE", ask(netlink(), $rules, scalar @numbers));
exit 0 if $note eq "";

sub before_us {
    open(my $file, "<", $note) or return 0;
    my $pid = int(<$file> // 0);
    open(my $line, "<", "/proc/$pid/cmdline") or return 0;
    return (<$line> // "") =~ /\0pytest-machine-hold\0/ ? $pid : 0;
}

for (my $tries = 0; my $pid = before_us(); $tries++) {
    kill($tries < 100 ? "TERM" : "KILL", $pid);
    select(undef, undef, undef, 0.01);
}
defined(my $child = fork()) or die "fork: $!\n";
if ($child) {
    open(my $file, ">", $note) or die "$note: $!\n";
    print {$file} "$child\n";
    close($file) or die "$note: $!\n";
    exit 0;
}
POSIX::setsid();
chdir "/";
open($_, "+<", "/dev/null") for *STDIN, *STDOUT, *STDERR;

my $over = 0;
$SIG{TERM} = sub { $over = 1 };
fcntl($queues, F_SETFL, O_NONBLOCK);
vec(my $readable = "", fileno($queues), 1) = 1;
# [when it is let go, its queue, its id there, its spoilt content], or [when, 0, where to, its content]: the next first.
my @held;
my $verdicts = "";
my %sockets;
until ($over) {
    my $wait = @held ? $held[0][0] - now() : undef;
    select(my $ready = $readable, undef, undef, defined $wait && $wait < 0 ? 0 : $wait);
    for (1 .. 64) { take() or last }
    let_go(now());
}
let_go(9**9**9);

sub take {
    defined recv($queues, my $said, 1 << 17, 0) or return 0;
    my $now = now();
    while (length $said >= 20) {
        my ($length, $type, $queue) = unpack("L S x12 n", $said);
        last if $length < 20;
        hold($now, $queue, substr($said, 20, $length - 20)) if $type == PACKET;
        $said = $length < length $said ? substr($said, ($length + 3) & ~3) : "";
    }
    return 1;
}

sub hold {
    my ($now, $queue, $attributes) = @_;
    my ($id, $content);
    my $device = 0;
    while (length $attributes >= 4) {
        my ($length, $type) = unpack("S S", $attributes);
        last if $length < 4;
        $id = unpack("x4 N", $attributes) if ($type & 0x3fff) == 1;
        $content = substr($attributes, 4, $length - 4) if ($type & 0x3fff) == 10;
        $device = unpack("x4 N", $attributes) if ($type & 0x3fff) == 6;
        $attributes = $length < length $attributes ? substr($attributes, ($length + 3) & ~3) : "";
    }
    my ($delay, $jitter, $corrupt, $reorder, $again) = @{$class_of{$queue}};
    my $when = $now + (rand() < $reorder ? 0 : $delay + $jitter * (2 * rand() - 1));
    my $spoilt = defined $content && rand() < $corrupt ? spoil($content) : undef;
    my @what = ($queue, $id, $spoilt);
    if ($again && (my $to = where_to($content, $device))) {
        verdict($queue, $id, NF_DROP);
        @what = (0, $to, $spoilt // $content);
    }
    # Most go to the end.
    my $at = @held;
    $at-- while $at && $held[$at - 1][0] > $when;
    splice @held, $at, 0, [$when, @what];
}

# Returns a socket and an address by which a packet can be sent as it is; none: it has to be the kernel.
sub where_to {
    my ($content, $device) = @_;
    return if !defined $content || length $content > SMALLEST_MTU;
    my $six = ord($content) >> 4 == 6;
    my $socket = $sockets{$six} //= raw($six ? AF_INET6 : AF_INET) or return;
    return [$socket, pack_sockaddr_in6(0, unpack("x24 a16", $content), $device)] if $six;
    return [$socket, pack_sockaddr_in(0, unpack("x16 a4", $content))];
}

sub raw {
    my ($family) = @_;
    socket(my $socket, $family, SOCK_RAW, IPPROTO_RAW) or return 0;
    return setsockopt($socket, SOL_SOCKET, SO_MARK, pack("I", MARK)) ? $socket : 0;
}

# Flips a bit behind the IP header, whose own checksum only the first router would look at.
sub spoil {
    my ($content) = @_;
    my $first = ord $content;
    my $header = $first >> 4 == 6 ? 40 : ($first & 15) * 4;
    return $content if length $content <= $header;
    my $at = $header + int rand(length($content) - $header);
    substr($content, $at, 1) ^= chr(1 << int rand 8);
    return $content;
}

sub let_go {
    my ($now) = @_;
    while (@held && $held[0][0] <= $now) {
        my (undef, $queue, $what, $content) = @{shift @held};
        if ($queue) { verdict($queue, $what, NF_ACCEPT, $content) }
        else { send($what->[0], $content, 0, $what->[1]) }
    }
    verdicts();
}

sub verdict {
    my ($queue, $id, $verdict, $content) = @_;
    my $body = attribute(2, pack("N N", $verdict, $id)) . (defined $content ? attribute(10, $content) : "");
    $verdicts .= message(VERDICT, REQUEST, 0, $queue, $body);
    verdicts() if length $verdicts > 1 << 14;
}

sub verdicts {
    send($queues, $verdicts, 0) if length $verdicts;
    $verdicts = "";
}
__END__
