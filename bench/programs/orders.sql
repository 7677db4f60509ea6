-- SQLite workload: an in-memory database filled, indexed, joined, updated and emptied.
PRAGMA temp_store = MEMORY;
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, note TEXT);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, total REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
INSERT INTO customers SELECT i, printf('customer %05d', i * 7919 % 5000), hex(zeroblob(i % 60)) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO orders SELECT i, 1 + i * 104729 % 5000, i * 0.25, hex(zeroblob(i % 90)) FROM n;
CREATE INDEX orders_customer ON orders(customer, total);
CREATE INDEX customers_name ON customers(name);
SELECT count(*), sum(length(name)), sum(sold) FROM (
    SELECT c.name AS name, sum(o.total) AS sold FROM customers c
    JOIN orders o ON o.customer = c.id GROUP BY c.name ORDER BY sold DESC);
SELECT count(*) FROM orders a JOIN orders b ON a.customer = b.customer AND a.id < b.id;
UPDATE orders SET note = note || printf('%x', id) WHERE id % 3 = 0;
SELECT length(group_concat(note, ',')) FROM orders;
SELECT count(DISTINCT substr(note, -4)) FROM orders;
DELETE FROM orders WHERE customer % 2 = 0;
SELECT count(*), round(sum(total)) FROM orders;
