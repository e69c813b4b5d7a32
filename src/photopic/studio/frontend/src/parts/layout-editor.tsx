// A canvas on which boxes are drawn, moved and resized, with the mouse or the keyboard.
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { arrow, between, moved, place, resized, spoken, style } from "../lib/boxes";
import type { Box, LayoutBox } from "../lib/contract";

interface Props {
  boxes: readonly LayoutBox[];
  background: string | null;
  change: (boxes: LayoutBox[]) => void;
}

type Drag = { kind: "draw"; from: [number, number] } | { kind: "move" | "resize"; index: number; last: [number, number] };

const STEP = 0.02; // a key press moves by this share

export function LayoutCanvas({ boxes, background, change }: Props) {
  const canvas = useRef<HTMLDivElement>(null);
  const drag = useRef<Drag | null>(null);
  const drawn = useSignal<Box | null>(null); // the box that is being drawn

  const replace = (index: number, box: Box) => change(boxes.map((each, at) => (at === index ? { ...each, box } : each)));
  const remove = (index: number) => change(boxes.filter((_, at) => at !== index));

  const down = (event: PointerEvent) => {
    if (!canvas.current || event.button !== 0) return;
    const at = place(event, canvas.current);
    const target = event.target as HTMLElement;
    const owner = target.closest<HTMLElement>("[data-box]");
    if (owner) {
      owner.focus();
      drag.current = { kind: target.classList.contains("handle") ? "resize" : "move", index: Number(owner.dataset.box), last: at };
    } else drag.current = { kind: "draw", from: at };
    canvas.current.setPointerCapture(event.pointerId);
    event.preventDefault();
  };

  const move = (event: PointerEvent) => {
    const now = drag.current;
    if (!now || !canvas.current) return;
    const at = place(event, canvas.current);
    if (now.kind === "draw") {
      drawn.value = between(now.from, at);
      return;
    }
    const box = boxes[now.index]?.box;
    if (!box) return;
    const by = now.kind === "move" ? moved : resized;
    replace(now.index, by(box, at[0] - now.last[0], at[1] - now.last[1]));
    now.last = at;
  };

  const up = () => {
    if (drag.current?.kind === "draw" && drawn.value) {
      change([...boxes, { words: "", box: drawn.value, edit: null, strength: null }]);
      focusLater(`[data-words="${boxes.length}"]`, true); // the next box is drawn where this one was
    }
    drag.current = null;
    drawn.value = null;
  };

  const key = (event: KeyboardEvent, index: number) => {
    const box = boxes[index]?.box;
    const direction = arrow(event);
    if (box && direction) {
      event.preventDefault();
      replace(index, (event.shiftKey ? resized : moved)(box, direction[0] * STEP, direction[1] * STEP));
    } else if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      remove(index);
      focusLater(".layout-add");
    }
  };

  return (
    <div ref={canvas} class="layout-canvas" onPointerDown={down} onPointerMove={move} onPointerUp={up} onPointerCancel={up} data-testid="layout">
      {background && <img src={background} alt="" draggable={false} />}
      {boxes.length === 0 && !drawn.value && <p class="quiet">Draw a box here with the mouse, or add one below.</p>}
      {boxes.map((each, index) => (
        <button
          key={index}
          type="button"
          class={`box k${index % 4}`}
          data-box={index}
          style={style(each.box)}
          aria-label={`Box ${index + 1}${each.words ? `, ${each.words}` : ""}: ${spoken(each.box)}. Arrow keys move it, with Shift they resize it, Delete removes it.`}
          onKeyDown={(event) => key(event, index)}
        >
          <span>{each.words || `box ${index + 1}`}</span>
          <i class="handle" />
        </button>
      ))}
      {drawn.value && <div class="box drawing" style={style(drawn.value)} />}
    </div>
  );
}

/** Gives the focus to an element that the next rendering makes. */
export function focusLater(selector: string, preventScroll = false): void {
  setTimeout(() => document.querySelector<HTMLElement>(selector)?.focus({ preventScroll }), 60);
}
