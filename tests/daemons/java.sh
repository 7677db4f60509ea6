#!/usr/bin/env bash
# OpenJDK with each collector it has. The JVM handles SIGSEGV itself: null pointers are not tested for but
# fault, here some hundred thousand times; safepoints are faults, too.
. "$(dirname "$0")/lib.sh"

seconds=170

compile() {
    cat >"$work/Work.java" <<'END'
import java.util.*;
import java.util.concurrent.*;
import java.util.zip.*;

public class Work {
    static final class Node { int value; Node next; }
    static Node maybe(int i) { return i % 10 == 0 ? null : new Node(); }

    static int nulls(int n) {
        int caught = 0;
        for (int i = 0; i < n; i++) {
            try {
                maybe(i).value++;
            } catch (NullPointerException e) {
                caught++;
            }
        }
        return caught;
    }

    static long heap(int seed, int rounds) {
        Random random = new Random(seed);
        Map<Integer, String> map = new HashMap<>();
        for (int i = 0; i < rounds; i++) {
            map.put(random.nextInt(20000), "value " + random.nextInt() + "x".repeat(random.nextInt(100)));
        }
        long sum = 0;
        for (String s : new TreeMap<>(map).values()) sum = sum * 31 + s.hashCode();
        return sum;
    }

    static long natives(int rounds) throws Exception { // zlib and direct buffers: malloc
        byte[] data = new byte[50000];
        new Random(5).nextBytes(data);
        Arrays.fill(data, 1000, 30000, (byte) 7);
        CRC32 crc = new CRC32();
        for (int i = 0; i < rounds; i++) {
            Deflater d = new Deflater();
            d.setInput(data); d.finish();
            byte[] packed = new byte[60000];
            int n = d.deflate(packed);
            d.end();
            crc.update(packed, 0, n);
            java.nio.ByteBuffer.allocateDirect(10000 + i).put(packed, 0, 1000);
        }
        return crc.getValue();
    }

    public static void main(String[] a) throws Exception {
        int scale = Integer.parseInt(a[0]);
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> results = new ArrayList<>();
        for (int t = 0; t < 4; t++) {
            final int seed = t;
            results.add(pool.submit(() -> heap(seed, 20000 * scale) + nulls(500000 * scale)));
        }
        System.out.println(nulls(1000000 * scale));
        System.out.println(natives(100 * scale));
        for (Future<Long> r : results) System.out.println(r.get());
        pool.shutdown();
        Process p = new ProcessBuilder("sh", "-c", "seq 1 100 | cksum").start();
        System.out.print(new String(p.getInputStream().readAllBytes()));
        System.out.println(p.waitFor());
        try { deep(0); } catch (StackOverflowError e) { System.out.println("overflow"); }
    }

    static int deep(int n) { return deep(n + 1) + 1; }
}
END
    (cd "$work" && plain javac Work.java 2>&1)
}

drive() {
    # -OmitStackTraceInFastThrow: every one of the faults is a real one.
    run java "$collector" -Xmx96m -XX:-OmitStackTraceInFastThrow -XX:ErrorFile="$folder/error.log" \
        -cp "$work" Work $((short ? 1 : 2)) >>"$out" 2>>"$folder/java.log"
    echo "status $?" >>"$out"
    cat "$folder/java.log" >>"$out"
}

# javac itself under Firn: its class files are the same.
drive_javac() {
    (cd "$folder" && run javac -d "$folder" "$work/Work.java") >>"$out" 2>&1
    for file in "$folder"/*.class; do
        cksum <"$file" >>"$out"
    done
}

if need java java javac; then
    compile
    if [ "$short" = 0 ]; then
        collectors="Serial Parallel G1 Z Shenandoah"
        compare java-compiler drive_javac
    else
        collectors="Serial G1"
    fi
    for name in $collectors; do
        collector=-XX:+Use${name}GC
        if plain java "$collector" -version >/dev/null 2>&1; then
            compare "java-$name" drive
        else
            skip "java-$name" "this build has no such collector"
        fi
    done
fi
finish
