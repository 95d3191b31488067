#!/usr/bin/env python3
"""Prints kernel_timeline.svg: who does what when in a CTA of the 256×128 kernel, by a small model of it.

    docs/images/kernel_timeline.py > docs/images/kernel_timeline.svg

Times of the tensor cores and of promotion follow from the instruction counts; those of TMA and of staging are only
plausible. The picture shows who waits for whom, not what was measured.
"""

WAVE, PROMOTE = 256, 64  # clocks: 4 wgmma m64n128k32; one FFMA for each of a thread's 64 accumulators
LOAD, STAGE, STORE = 700, 260, 520  # clocks: TMA load of a stage, staging of a panel, TMA's read of a panel
STAGES, STEPS, TILES, WAVES, PANELS = 3, 3, 2, 2, 2
COLOURS = {"load": "#7aa6c2", "wgmma": "#1b6ca8", "promote": "#c9822b", "stage": "#8a6fb0", "store": "#5d9b6b"}


def simulate():
    """Boxes (row, begin, end, kind, text, tile)."""
    boxes = []
    free_at, full_at = [0] * STAGES, {}
    tensor_free, now = 0, [0, 0]
    panel_free, store_free = [0] * PANELS, 0
    step_names = [(tile, step) for tile in range(TILES) for step in range(STEPS)]

    def load(i, at):
        full_at[i] = at + LOAD
        boxes.append((0, at, at + LOAD, "load", f"{step_names[i][1]}", step_names[i][0]))

    for i in range(STAGES):
        load(i, i * 90)
    for i, (tile, step) in enumerate(step_names):
        released = [0, 0]
        queue = sorted((0, 1), key=lambda g: now[g])
        ready = {g: max(now[g], full_at[i]) for g in queue}
        for wave in range(WAVES):
            for g in sorted(queue, key=lambda g: ready[g]):
                begin = max(ready[g], tensor_free)
                tensor_free = begin + WAVE
                boxes.append((1 + g, begin, begin + WAVE, "wgmma", f"step {step}, wave {wave}", tile))
                boxes.append((1 + g, begin + WAVE, begin + WAVE + PROMOTE, "promote", "", tile))
                ready[g] = begin + WAVE + PROMOTE
                released[g] = begin + WAVE
        now = [ready[0], ready[1]]
        if i + STAGES < len(step_names):
            load(i + STAGES, max(released))
        if step == STEPS - 1:
            for p in range(PANELS):
                staged = []
                for g in (0, 1):
                    begin = max(now[g], panel_free[p])
                    boxes.append((1 + g, begin, begin + STAGE, "stage", f"panel {p}", tile))
                    now[g] = begin + STAGE
                    staged.append(now[g])
                begin = max(max(staged), store_free)
                store_free = panel_free[p] = begin + STORE
                boxes.append((3, begin, store_free, "store", f"panel {p}", tile))
    return boxes


def main():
    boxes = simulate()
    scale, left, top, height, gap = 0.155, 125, 40, 34, 14
    end = max(box[2] for box in boxes)
    width = left + end * scale + 20
    rows = ["load thread", "math warpgroup 0", "math warpgroup 1", "store thread"]
    extra = 12  # loads overlap: each slot has a lane of its own
    y_of = [top + r * (height + gap) + (extra if r else 0) for r in range(4)]
    total = y_of[3] + height + 62
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {total:.0f}" width="{width:.0f}" '
        f'height="{total:.0f}" font-family="Helvetica, Arial, sans-serif" font-size="11">',
        f'<rect width="{width:.0f}" height="{total:.0f}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-size="12" fill="#222222">A CTA of the 256×128 kernel, {STAGES} stages, k = '
        f"{STEPS * 128}: two tiles (the second one paler). A model, not a measurement.</text>",
    ]
    for name, y in zip(rows, y_of):
        out.append(f'<text x="{left - 8}" y="{y + height / 2 + 4:.1f}" text-anchor="end" fill="#222222">{name}</text>')
    loads = 0
    for row, begin, finish, kind, text, tile in boxes:
        x, w = left + begin * scale, (finish - begin) * scale
        y, h = y_of[row], height
        if kind == "load":
            lane_height = (height + extra) / STAGES
            y, h = y + loads % STAGES * lane_height, lane_height - 2
            loads += 1
            text = f"step {text}: A, B, scales"
        opacity = 1 if tile == 0 else 0.72
        out.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" fill="{COLOURS[kind]}" '
            f'fill-opacity="{opacity}" stroke="#ffffff" stroke-width="0.7"/>'
        )
        size = 8.5 if kind == "load" else 9
        if text and kind == "wgmma":
            first, second = text.split(", ")
            for i, line in enumerate((first, second)):
                out.append(
                    f'<text x="{x + w / 2:.1f}" y="{y + h / 2 - 2 + i * 11:.1f}" text-anchor="middle" '
                    f'font-size="{size}" fill="#ffffff">{line}</text>'
                )
        elif text:
            out.append(
                f'<text x="{x + w / 2:.1f}" y="{y + h / 2 + 3:.1f}" text-anchor="middle" font-size="{size}" '
                f'fill="#ffffff">{text}</text>'
            )
    axis = y_of[3] + height + 8
    for clocks in range(0, int(end) + 1, 512):
        x = left + clocks * scale
        out.append(f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{axis}" stroke="#999999" stroke-width="0.5" '
                   'stroke-dasharray="2 3"/>')
        out.append(f'<text x="{x:.1f}" y="{axis + 12}" text-anchor="middle" font-size="9" fill="#555555">{clocks}</text>')
    out.append(f'<text x="{left - 8}" y="{axis + 12}" text-anchor="end" font-size="9" fill="#555555">clocks</text>')
    x = left
    for kind, meaning in (("load", "TMA load"), ("wgmma", "4 wgmma m64n128k32"), ("promote", "promotion"),
                          ("stage", "round, stage in shared memory"), ("store", "TMA store")):
        out.append(f'<rect x="{x}" y="{axis + 26}" width="12" height="12" fill="{COLOURS[kind]}"/>')
        out.append(f'<text x="{x + 17}" y="{axis + 36}" fill="#222222">{meaning}</text>')
        x += 45 + 6.5 * len(meaning)
    out.append("</svg>")
    print("\n".join(out))


if __name__ == "__main__":
    main()
