#!/usr/bin/perl
# Sets COUNT values of many sizes over several connections, overwrites and deletes some, reads all
# of them back.  memcached.pl PORT COUNT
use strict;
use warnings;
use IO::Socket::INET;

my ($port, $count) = @ARGV;
my @sockets = map { IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 10)
    // die "connect: $!\n" } 1 .. 8;
alarm 90;

sub value { my ($i, $round) = @_; return "value-$i-$round-" . chr(97 + $i % 26) x ($i * 37 % 3000); }

sub store {
    my ($i, $round) = @_;
    my $socket = $sockets[ $i % @sockets ];
    my $value = value($i, $round);
    print {$socket} "set key$i $i 0 " . length($value) . "\r\n$value\r\n";
    my $answer = <$socket> // die "set key$i: the connection ended\n";
    die "set key$i: $answer" if $answer ne "STORED\r\n";
}

sub fetch {
    my $i = shift;
    my $socket = $sockets[ ($i + 3) % @sockets ];
    print {$socket} "get key$i\r\n";
    my $head = <$socket> // die "get key$i: the connection ended\n";
    return undef if $head eq "END\r\n";
    my ($flags, $length) = $head =~ /^VALUE key$i (\d+) (\d+)\r\n$/ or die "get key$i: $head";
    die "get key$i: flags $flags\n" if $flags != $i;
    read $socket, my $value, $length;
    die "get key$i: no end\n" if <$socket> ne "\r\n" || <$socket> ne "END\r\n";
    return $value;
}

store($_, 1) for 1 .. $count;
for my $i (grep { $_ % 3 == 0 } 1 .. $count) {
    store($i, 2);
}
for my $i (grep { $_ % 7 == 0 } 1 .. $count) {
    my $socket = $sockets[0];
    print {$socket} "delete key$i\r\n";
    die "delete key$i\n" if <$socket> ne "DELETED\r\n";
}
for my $i (1 .. $count) {
    my $got = fetch($i);
    if ($i % 7 == 0) {
        die "key$i is still there\n" if defined $got;
        next;
    }
    my $want = value($i, $i % 3 == 0 ? 2 : 1);
    die "key$i is missing\n" if !defined $got;
    die "key$i has another value\n" if $got ne $want;
}
print "all values are right\n";
