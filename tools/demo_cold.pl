# The client of tools/demo_cold: talks to Redis, and changes a bit of another process's memory.
#
#   demo_cold.pl load PORT KEYS     sets key:1 to key:KEYS to documents of about a KiB
#   demo_cold.pl verify PORT KEYS   compares them all
#   demo_cold.pl touch PORT KEYS N  asks for N keys, far apart, one after the other: the median, the 99th of
#                                   100 and the longest answer, in microseconds
#   demo_cold.pl flip PID           flips one bit in each KiB of what is not in core dumps
use strict;
use warnings;
no warnings 'portable'; # addresses
use IO::Socket::INET;
use Time::HiRes qw(clock_gettime CLOCK_MONOTONIC);

my ($what, $target, $keys, $count) = @ARGV;
my $redis;

sub value {
    my ($i) = @_;
    my $text = sprintf '{"id":%d,"user":"user-%d","mail":"user-%d@example.org","score":%d', $i, $i * 7919 % $keys,
        $i * 7919 % $keys, $i * 31 % 1000;
    for my $j (1 .. 20 + $i % 9) {
        $text .= sprintf ',"field-%d":{"value":%d,"kind":"%s"}', $j, $i * $j % 10007, qw(red green blue grey)[($i + $j) % 4];
    }
    return $text . '}';
}

sub command {
    my $text = sprintf "*%d\r\n", scalar @_;
    $text .= sprintf("\$%d\r\n", length) . $_ . "\r\n" for @_;
    return $text;
}

sub get_answer {
    my $head = <$redis>;
    die "redis has gone\n" unless defined $head;
    return $head unless $head =~ /^\$(\d+)/;
    my $body = '';
    while (length $body < $1 + 2) {
        my $n = read $redis, $body, $1 + 2 - length $body, length $body;
        die "redis has gone\n" unless $n;
    }
    return substr $body, 0, $1;
}

# Sixteen requests on the way at a time.
sub each_key {
    my ($request, $answer) = @_;
    for (my $from = 1; $from <= $keys; $from += 16) {
        my $until = $from + 15 < $keys ? $from + 15 : $keys;
        print $redis join '', map { $request->($_) } $from .. $until;
        $redis->flush;
        $answer->($_, get_answer()) for $from .. $until;
    }
}

sub touch {
    my @times;
    for my $i (1 .. $count) {
        my $key = 1 + ($i * int($keys / $count) + $i * 37) % $keys;
        my $begun = clock_gettime(CLOCK_MONOTONIC);
        print $redis command('GET', "key:$key");
        $redis->flush;
        my $got = get_answer();
        push @times, (clock_gettime(CLOCK_MONOTONIC) - $begun) * 1e6;
        die "key:$key is wrong\n" if $got ne value($key);
    }
    @times = sort { $a <=> $b } @times;
    printf "%d %d %d\n", $times[@times / 2], $times[@times * 99 / 100], $times[-1];
}

# The store is not in core dumps (dd), and neither is little else that is this large. A flag of each mapping is
# told behind it.
sub flip {
    my ($from, $until, $rss, $mode, @ranges) = (0, 0, 0, '');
    open my $maps, '<', "/proc/$target/smaps" or die "smaps: $!\n";
    while (<$maps>) {
        ($from, $until, $mode) = (hex $1, hex $2, $3) if /^([0-9a-f]+)-([0-9a-f]+) (\S+)/;
        $rss = $1 if /^Rss:\s+(\d+)/;
        push @ranges, [$rss, $from, $until] if /^VmFlags:.* dd\b/ && $mode =~ /^rw/ && $rss > 0;
    }
    open my $memory, '+<:raw', "/proc/$target/mem" or die "mem: $!\n";
    open my $present, '<:raw', "/proc/$target/pagemap" or die "pagemap: $!\n";
    my $flips = 0;
    for my $range (sort { $b->[0] <=> $a->[0] } @ranges) {
        my $at;
        for (my $page = $range->[1]; $page < $range->[2]; $page += 4096) {
            sysseek $present, $page / 4096 * 8, 0;
            last if sysread($present, my $entry, 8) != 8;
            next unless unpack('Q<', $entry) >> 63;
            for ($at = $page; $at < $page + 4096; $at += 1024) {
                sysseek $memory, $at, 0;
                next if sysread($memory, my $byte, 1) != 1;
                sysseek $memory, $at, 0;
                $flips += syswrite($memory, chr(ord($byte) ^ 4)) ? 1 : 0;
            }
        }
        last;
    }
    print "$flips\n";
}

if ($what ne 'flip') {
    $redis = IO::Socket::INET->new("127.0.0.1:$target") or die "no redis at port $target: $!\n";
}
if ($what eq 'load') {
    my $bytes = 0;
    each_key(sub { my $v = value($_[0]); $bytes += length $v; command('SET', "key:$_[0]", $v) },
        sub { die "key:$_[0]: $_[1]" if $_[1] !~ /^\+OK/ });
    printf "%d\n", $bytes >> 20;
} elsif ($what eq 'verify') {
    each_key(sub { command('GET', "key:$_[0]") }, sub { die "key:$_[0] is wrong\n" if $_[1] ne value($_[0]) });
} elsif ($what eq 'touch') {
    touch();
} else {
    flip();
}
