// Where each word of the prompt was read: hover or focus a word, and every picture is lit where it was.
import type { Signal } from "@preact/signals";
import type { Result } from "../lib/contract";

interface Props {
  pictures: readonly Result[];
  shown: Signal<string | null>; // while hovered or focused
  held: Signal<string | null>; // pressed
  expected?: boolean;
}

/** The words of the first picture that has some; each is a button that shows where it was read while hovered, focused or pressed. */
export function WordsRead({ pictures, shown, held, expected = false }: Props) {
  const words = pictures.find((each) => each.words?.length)?.words ?? [];
  if (!words.length) return expected ? <div class="words-read quiet">Where words are read is shown with the pictures.</div> : null; // keeps its place
  return (
    <div class="words-read" role="group" aria-label="Where each word was read">
      <span class="quiet">Where it was read:</span>
      {words.map(({ word }) => (
        <button
          key={word}
          type="button"
          class={`word ${shown.value === word || held.value === word ? "on" : ""}`}
          aria-pressed={held.value === word}
          onMouseEnter={() => (shown.value = word)}
          onMouseLeave={() => (shown.value = null)}
          onFocus={() => (shown.value = word)}
          onBlur={() => (shown.value = null)}
          onClick={() => (held.value = held.value === word ? null : word)}
        >
          {word}
        </button>
      ))}
    </div>
  );
}

export function Lit({ picture, word }: { picture: Result; word: string | null }) {
  const map = picture.words?.find((each) => each.word === word)?.maps[0];
  return map ? <img class="lit" src={map} alt="" data-word={word} draggable={false} /> : null;
}
