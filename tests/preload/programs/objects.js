// Objects, buffers, compression, hashing, worker threads, a child process.  objects.js COUNT
'use strict';
const { Worker, isMainThread, workerData, parentPort } = require('worker_threads');
const { execFileSync } = require('child_process');
const crypto = require('crypto');
const zlib = require('zlib');

function makeNumbers(seed) {
    let state = seed;
    return (bound) => {
        state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
        return (state >> 8) % bound;
    };
}

function churn(seed, count) {
    const number = makeNumbers(seed);
    const live = new Map();
    const buffers = [];
    for (let i = 0; i < count; i++) {
        live.set('key' + number(5000), { i, text: 'x'.repeat(number(100)), list: [i, i + 1] });
        if (i % 3 === 0) live.delete('key' + number(5000));
        // Above 8 KiB a Buffer is an allocation of its own, outside of V8's heap.
        if (i % 50 === 0) buffers.push(Buffer.alloc(4096 + number(60000), i & 255));
        if (buffers.length > 40) buffers.splice(number(40), 5);
    }
    const packed = zlib.deflateSync(JSON.stringify([...live.entries()].sort()));
    const back = zlib.inflateSync(packed);
    return crypto.createHash('sha256').update(back).update(Buffer.concat(buffers)).digest('hex');
}

if (!isMainThread) {
    parentPort.postMessage(churn(workerData.seed, workerData.count));
} else {
    const count = Number(process.argv[2] || 10000);
    const start = (seed) => new Promise((resolve, reject) => {
        const worker = new Worker(__filename, { workerData: { seed, count } });
        worker.once('message', resolve);
        worker.once('error', reject);
    });
    Promise.all([1, 2, 3].map(start)).then((results) => {
        console.log(churn(9, count), results.join(' '));
        console.log(execFileSync('/bin/echo', ['from', 'a', 'child']).toString().trim());
    });
}
