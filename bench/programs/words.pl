# Perl workload: hashes of arrays, string building, split, join, sort, regular expressions.
# Prints a checksum.
use strict;
use warnings;

my $checksum = 0;
for my $round (1 .. 5) {
    my %index;
    for my $n (1 .. 40000) {
        my $word = 'w' . ($n * 7919 % 5000);
        push @{ $index{$word} }, { line => $n, text => $word x (1 + $n % 20) };
    }
    for my $word (sort { @{ $index{$a} } <=> @{ $index{$b} } || $a cmp $b } keys %index) {
        $checksum += length join ',', map { $_->{line} } @{ $index{$word} };
    }
    my $text = join ' ', map { $_->{text} } map { @$_ } values %index;
    my %seen;
    $seen{ length $_ }++ for split / /, $text;
    $checksum += $_ * $seen{$_} for keys %seen;
    $checksum += () = $text =~ /w1[0-9]+w/g;
}
print "$checksum\n";
