"""Python workload: objects, dictionaries, strings, sorting, JSON. Prints a checksum."""

import json
import re


class Order:
    """An ordinary object with a dictionary of attributes."""

    def __init__(self, number, customer, lines):
        self.number = number
        self.customer = customer
        self.lines = lines

    def as_dict(self):
        """The shape that goes to JSON."""
        return {"number": self.number, "customer": self.customer, "lines": self.lines}


def make_orders(count):
    """Orders whose names and line lists vary in size."""
    return [
        Order(n, f"customer-{n * 7919 % 1000:04d}" * (1 + n % 5), [n * k % 97 for k in range(n % 40)])
        for n in range(count)
    ]


def main():
    """Builds, groups, sorts, serialises, parses and searches; about half a second."""
    checksum = 0
    for _ in range(3):
        orders = make_orders(15000)
        groups = {}
        for order in orders:
            groups.setdefault(order.customer, []).append(order)
        for name in sorted(groups, key=lambda n: (len(groups[n]), n)):
            checksum += len(name) * len(groups[name])
        text = json.dumps([order.as_dict() for order in orders])
        checksum += sum(len(entry["lines"]) for entry in json.loads(text))
        checksum += len(re.findall(r'"customer-0[0-9]+', text))
        words = text.replace("[", " ").replace("]", " ").split()
        checksum += len(" ".join(sorted(set(words))))
    print(checksum)


main()
