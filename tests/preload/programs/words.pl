#!/usr/bin/perl
# Strings, hashes, regular expressions, closures, sorting, sprintf: perl's allocation habits, with
# output that depends on all of it.  words.pl COUNT
use strict;
use warnings;

my $count = shift || 10000;
my $state = 12345;
sub next_number { $state = ($state * 1103515245 + 12345) % 2147483648; return $state >> 8; }

my (%seen, @lines, %by_length);
for my $i (1 .. $count) {
    my $word = join '', map { chr(97 + next_number() % 26) } 1 .. 3 + next_number() % 9;
    $seen{$word}++;
    push @{ $by_length{ length $word } }, $word;
    push @lines, sprintf('%06d %s %s', $i, $word, 'x' x (next_number() % 300)) if $i % 7 == 0;
    delete $seen{ (sort keys %seen)[0] } if $i % 5000 == 0;
}
my $text = join "\n", @lines;
my $long = () = $text =~ /\bx{100,}\b/g;
(my $squeezed = $text) =~ s/x+/sprintf '<%d>', length $&/ge;
my @closures = map { my $n = $_; sub { return $n * shift } } 1 .. 1000;
my $sum = 0;
$sum += $closures[ $_ % 1000 ]->($_) for 1 .. $count;
my $tree;
for my $word (sort { $a cmp $b } keys %seen) {
    my $node = \$tree;
    $node = \$$node->{$_} for split //, substr $word, 0, 4;
}
sub depth { my $node = shift; my $max = 0;
    for (values %{ $node || {} }) { my $d = depth($_); $max = $d if $d > $max; } return 1 + $max; }
print scalar(keys %seen), ' ', $long, ' ', length($squeezed), ' ', $sum, ' ', depth($tree), "\n";
print join(' ', map { "$_:" . scalar @{ $by_length{$_} } } sort { $a <=> $b } keys %by_length), "\n";
print substr($squeezed, -200), "\n";
my $child = open(my $pipe, '-|') // die "fork: $!";
if (!$child) { print join ',', (sort keys %seen)[ 0 .. 20 ]; exit 0; }
print <$pipe>, "\n";
close $pipe or die 'child failed';
