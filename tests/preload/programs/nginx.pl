#!/usr/bin/perl
# Requests files in turn, direct and through the server's own proxy, over kept connections;
# compares bytes; reloads the server twice on the way.  nginx.pl PORT FOLDER PID COUNT
use strict;
use warnings;
use HTTP::Tiny;

my ($port, $folder, $pid, $count) = @ARGV;
alarm 90;
my %content;
for my $path (glob "$folder/*") {
    open my $file, '<', $path or die "$path: $!\n";
    local $/;
    my ($name) = $path =~ m{([^/]+)$};
    $content{$name} = <$file>;
}
my @names = sort keys %content;
die "no files\n" if !@names;
my @clients = map { HTTP::Tiny->new(keep_alive => 1, timeout => 20) } 1 .. 4;
for my $i (1 .. $count) {
    my $name = $names[ $i % @names ];
    my $where = $i % 5 == 0 ? "proxied/$name" : $name;
    my $answer = $clients[ $i % 4 ]->get("http://127.0.0.1:$port/$where");
    die "$where: $answer->{status} $answer->{reason} $answer->{content}\n" if $answer->{status} != 200;
    die "$where: other bytes\n" if $answer->{content} ne $content{$name};
    my $missing = $i % 50 == 0 ? $clients[0]->get("http://127.0.0.1:$port/none$i") : undef;
    die "none$i: $missing->{status}\n" if $missing && $missing->{status} != 404;
    kill 'HUP', $pid if $i == int($count / 3) || $i == int($count / 2);
}
print "all files are right\n";
