#!/usr/bin/env bash
# Chromium, headless: a local page with script, canvas, fonts and an image, to a PNG. It brings its own malloc, so that
# Firn stands aside in it, and says so; what must hold is that nothing else changes.
. "$(dirname "$0")/lib.sh"

drive() {
    cat >"$folder/page.html" <<'END'
<!doctype html><meta charset=utf-8><title>page</title><body style="font-family: sans-serif">
<h1>Snow, old and cold</h1><canvas id=c width=300 height=200></canvas><div id=d></div><script>
const g = document.getElementById("c").getContext("2d");
for (let i = 0; i < 400; i++) { g.fillStyle = `hsl(${i * 7 % 360} 70% 50%)`; g.fillRect(i * 13 % 300, i * 29 % 200, 20, 12); }
let rows = []; for (let i = 0; i < 3000; i++) rows.push({id: i, text: "row " + i * i});
rows.sort((a, b) => a.text < b.text ? -1 : 1);
document.getElementById("d").textContent = rows.slice(0, 60).map(r => r.text).join(", ");
</script>
END
    chown -R nobody "$folder"
    become nobody
    export HOME=$folder XDG_RUNTIME_DIR=$folder
    run chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --force-device-scale-factor=1 \
        --user-data-dir="$folder/profile" --window-size=640,480 --virtual-time-budget=2000 \
        --screenshot="$folder/page.png" "file://$folder/page.html" >"$folder/said" 2>&1
    echo "chromium $?" >>"$out"
    cksum <"$folder/page.png" >>"$out" 2>&1
    wc -c <"$folder/page.png" >>"$out" 2>&1
}

need chromium chromium && compare chromium drive
finish
