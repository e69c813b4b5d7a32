// The square of a picture that is learnt from: dragged, resized at its corner, or moved with the keys.
import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { arrow, place, spoken, square, style } from "../lib/boxes";
import type { Box, Picture } from "../lib/contract";
import { clamp } from "../lib/words";
import { Dialog } from "./dialog";

interface Props {
  picture: Picture;
  crop: Box | null;
  done: (crop: Box | null) => void;
  close: () => void;
}

const LEAST_SIDE = 0.15; // of the shorter side

export function Cropper({ picture, crop, done, close }: Props) {
  const { width, height } = picture;
  const short = Math.min(width, height);
  const box = useSignal<Box>(crop ?? square(width, height));
  const area = useRef<HTMLDivElement>(null);
  const drag = useRef<{ kind: "move" | "resize"; last: [number, number] } | null>(null);
  const side = () => ((box.value[2] - box.value[0]) * width) / short;
  const centre = (): [number, number] => [(box.value[0] + box.value[2]) / 2, (box.value[1] + box.value[3]) / 2];

  const moveBy = (dx: number, dy: number) => {
    const [x, y] = centre();
    box.value = square(width, height, side(), [x + dx, y + dy]);
  };
  const grow = (by: number) => (box.value = square(width, height, clamp(side() + by, LEAST_SIDE, 1), centre()));

  const pointer = (event: PointerEvent) => {
    if (!area.current || event.button !== 0) return;
    const corner = (event.target as HTMLElement).classList.contains("handle");
    drag.current = { kind: corner ? "resize" : "move", last: place(event, area.current) };
    area.current.setPointerCapture(event.pointerId);
  };
  const move = (event: PointerEvent) => {
    if (!drag.current || !area.current) return;
    const at = place(event, area.current);
    const [dx, dy] = [at[0] - drag.current.last[0], at[1] - drag.current.last[1]];
    if (drag.current.kind === "move") moveBy(dx, dy);
    else grow((2 * Math.max(dx * width, dy * height)) / short);
    drag.current.last = at;
  };
  const key = (event: KeyboardEvent) => {
    const direction = arrow(event);
    if (direction) {
      event.preventDefault();
      if (event.shiftKey) grow((direction[0] - direction[1]) * 0.04);
      else moveBy(direction[0] * 0.02, direction[1] * 0.02);
    }
    if (event.key === "+") grow(0.04);
    if (event.key === "-") grow(-0.04);
  };

  return (
    <Dialog title={`Crop ${picture.name}`} close={close}>
      <p class="quiet">Drag the square, or its corner. Keys: arrows move it, + and − resize it.</p>
      <div class="cropper" ref={area} onPointerDown={pointer} onPointerMove={move} onPointerUp={() => (drag.current = null)}>
        <img src={picture.url} alt={picture.name} draggable={false} width={width} height={height} />
        <button type="button" class="crop" style={style(box.value)} onKeyDown={key} aria-label={`The part that is learnt from: ${spoken(box.value)}`}>
          <i class="handle" />
        </button>
      </div>
      <footer>
        <button type="button" class="quiet" onClick={() => done(null)}>
          Whole picture
        </button>
        <button type="button" class="primary" onClick={() => done(box.value)}>
          Use this part
        </button>
      </footer>
    </Dialog>
  );
}
