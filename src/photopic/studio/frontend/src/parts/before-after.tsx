// Two pictures in one frame with a divider between them: dragged, or moved with the arrow keys.
import { useSignal } from "@preact/signals";

interface Shown {
  url: string;
  label: string;
}

export function BeforeAfter({ before, after }: { before: Shown; after: Shown }) {
  const at = useSignal(50);
  return (
    <div class="before-after" data-testid="before-after">
      <img src={after.url} alt={after.label} draggable={false} />
      <img class="over" src={before.url} alt={before.label} draggable={false} style={{ clipPath: `inset(0 ${100 - at.value}% 0 0)` }} />
      <span class="badge left">{before.label}</span>
      <span class="badge right">{after.label}</span>
      <i class="divider" style={{ left: `${at.value}%` }} />
      <input
        type="range"
        min="0"
        max="100"
        value={at.value}
        aria-label={`Divider between ${before.label} and ${after.label}`}
        onInput={(event) => (at.value = event.currentTarget.valueAsNumber)}
      />
    </div>
  );
}
