#!/usr/bin/perl
# Requests files in turn, direct and through the server's own proxy, over kept connections;
# compares bytes; reloads the server twice on the way.  nginx.pl PORT FOLDER PID COUNT
use strict;
use warnings;
use HTTP::Tiny;

my ($port, $folder, $pid, $count) = @ARGV;
my %content;
for my $path (glob "$folder/*") {
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    my ($name) = $path =~ m{([^/]+)$};
    $content{$name} = <$file>;
}
my @names = sort keys %content;
die "no files\n" if !@names;
my @clients = map { HTTP::Tiny->new(keep_alive => 1, timeout => 60) } 1 .. 4;

# A worker that ends at a reload closes the connections it keeps, maybe just when the next request is on
# its way: the answer is then a reset. HTTP::Tiny asks anew after an end of file only. Each connection,
# ours and those of the proxy, may meet that once a reload, and no more.
my $resets = 0;
sub request {
    my ($client, $url) = @_;
    for (;;) {
        my $answer = $client->get($url);
        return $answer if $answer->{status} != 599;
        return $answer if $answer->{content} !~ /reset by peer|Broken pipe|Unexpected end|Socket closed/;
        return $answer if ++$resets > 16;
    }
}

for my $i (1 .. $count) {
    my $name = $names[ $i % @names ];
    my $where = $i % 5 == 0 ? "proxied/$name" : $name;
    my $answer = request($clients[ $i % 4 ], "http://127.0.0.1:$port/$where");
    die "$where: $answer->{status} $answer->{reason} $answer->{content}\n" if $answer->{status} != 200;
    die "$where: other bytes\n" if $answer->{content} ne $content{$name};
    my $missing = $i % 50 == 0 ? request($clients[0], "http://127.0.0.1:$port/none$i") : undef;
    die "none$i: $missing->{status}\n" if $missing && $missing->{status} != 404;
    kill 'HUP', $pid if $i == int($count / 3) || $i == int($count / 2);
}
print "all files are right\n";
