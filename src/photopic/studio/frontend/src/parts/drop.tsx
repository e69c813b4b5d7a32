// Where files are dropped, or chosen with the keyboard; folders are read to their leaves.
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useId, useRef } from "preact/hooks";

interface DropProps {
  label: string;
  help?: ComponentChildren;
  accept?: string;
  many?: boolean;
  folder?: boolean; // also offer to choose a whole folder
  small?: boolean;
  problem?: string | null;
  take: (files: File[]) => void;
}

export const PICTURES = "image/png,image/jpeg,image/webp,image/gif,image/bmp,.png,.jpg,.jpeg,.webp,.gif,.bmp";

export function Drop({ label, help, accept = PICTURES, many = true, folder = false, small = false, problem, take }: DropProps) {
  const id = useId();
  const over = useSignal(false);
  const input = useRef<HTMLInputElement>(null);
  const chosen = (event: Event) => {
    const target = event.currentTarget as HTMLInputElement;
    const files = [...(target.files ?? [])];
    target.value = ""; // so that the same file can be chosen again
    if (files.length) take(files);
  };
  const dropped = async (event: DragEvent) => {
    event.preventDefault();
    over.value = false;
    const files = await filesOf(event.dataTransfer);
    if (files.length) take(many ? files : files.slice(0, 1));
  };
  return (
    <div
      class={`drop ${over.value ? "over" : ""} ${small ? "small" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        over.value = true;
      }}
      onDragLeave={() => (over.value = false)}
      onDrop={(event) => void dropped(event)}
    >
      <label for={id} class="button quiet">
        {label}
      </label>
      <input
        id={id}
        ref={input}
        type="file"
        class="unseen"
        accept={accept}
        multiple={many}
        onChange={chosen}
        {...(help ? { "aria-describedby": `${id}-help` } : {})}
        {...(problem ? { "aria-invalid": true } : {})}
      />
      {folder && <FolderInput take={take} />}
      {help && (
        <p class="help" id={`${id}-help`}>
          {help}
        </p>
      )}
      {problem && <p class="problem">{problem}</p>}
    </div>
  );
}

function FolderInput({ take }: { take: (files: File[]) => void }) {
  const id = useId();
  return (
    <>
      <label for={id} class="button quiet">
        Choose a folder
      </label>
      <input
        id={id}
        type="file"
        class="unseen"
        multiple
        {...{ webkitdirectory: true }}
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])].filter((file) => /\.(png|jpe?g|webp|gif|bmp)$/i.test(file.name));
          event.currentTarget.value = "";
          if (files.length) take(files);
        }}
      />
    </>
  );
}

const paths = new WeakMap<File, string>(); // of files that came out of a dropped folder

/** The folder that a file was chosen in, "cats" of "pictures/cats/1.png", or null: the class of a class folder. */
export function folderOf(file: File): string | null {
  const parts = (paths.get(file) || file.webkitRelativePath || "").split("/");
  return parts.length > 2 ? (parts[parts.length - 2] ?? null) : null;
}

async function filesOf(transfer: DataTransfer | null): Promise<File[]> {
  if (!transfer) return [];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.() ?? null);
  if (!entries.some((entry) => entry?.isDirectory)) return [...transfer.files];
  const found: File[] = [];
  for (const entry of entries) if (entry) await walk(entry, found);
  return found;
}

async function walk(entry: FileSystemEntry, found: File[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed));
    paths.set(file, entry.fullPath.replace(/^\//, ""));
    if (/\.(png|jpe?g|webp|gif|bmp|edit)$/i.test(file.name)) found.push(file);
    return;
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed)); // at most 100 a call
    if (!some.length) return;
    for (const each of some) await walk(each, found);
  }
}
