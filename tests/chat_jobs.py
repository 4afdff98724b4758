"""Chat jobs of small LLaVAs, and the chat templates of those: one of parts, one of texts."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from checkpoints import save_llava
from pictures import encoded, picture

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.columns import needed_columns
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.plugin import announce_plugins, register

PARTS = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>
{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}</s>{% endfor %}\
{% if add_generation_prompt %}ASSISTANT:{% if slow is defined and slow %} hm{% endif %}{% endif %}"""
TEXT = """{% for message in messages %}{% if message['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}\
{{ message['role'] }}: {{ (message['content'].split('</s>') | last) | trim }}</s>{% endfor %}\
{% if add_generation_prompt %}assistant:{% endif %}"""
TEMPLATES = {"parts": PARTS, "text": TEXT}


def save_chat_llava(folder: Path, kind: str) -> None:
    """A LLaVA with a chat template of the kind asked for."""
    save_llava(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATES[kind])


class ChatJob:
    """A chat job's row mapper, and what it makes of rows."""

    def __init__(self, folder: Path, model: Path, columns: dict[str, Any] | pa.Table, **tables: Any) -> None:
        announce_plugins([], folder)
        register()
        prompt = {"template": None, "chat": True, **tables.pop("prompt", {})}
        tables["input"] = {"id_column": None, **tables.get("input", {})}
        job = jobs.write_job(folder, columns, prompt=prompt, model={"path": str(model)}, **tables)
        self.config = load_config(job)
        self.table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        self.holds = tables.pop("holds", PromptColumn.TEXTS)

    def rows(self, holds: PromptColumn = PromptColumn.TEXTS) -> list[Any]:
        """Of each row its prompt as text, or the error."""
        mapper = RowMapper(self.config, self.table.schema, self.config.folder, holds)
        used = self.table.select(needed_columns(self.config, self.table.schema)).combine_chunks().to_batches()[0]
        names = [f"r{number}" for number in range(len(self.table))]
        return [
            self.shown(mapper, row) if isinstance(row, MappedRow) else row.error
            for row in mapper.map(RowBatch(0, used, names))
        ]

    @staticmethod
    def shown(mapper: RowMapper, row: MappedRow) -> str:
        text = mapper._model.tokenizer.decode(row.engine_input["prompt_token_ids"])
        # This tokenizer has no decoder for the characters that stand for white space.
        return re.sub("(<image>)+", "<image>", text).replace("<s>", "").replace("Ġ", " ").replace("Ċ", "\n")


def image(seed: int = 0) -> bytes:
    return encoded(picture(seed, (40, 40)), "PNG")


def ids_of(job: ChatJob, holds: PromptColumn = PromptColumn.TEXTS) -> list[int]:
    """The token ids of the prompt of a job's only row."""
    mapper = RowMapper(job.config, job.table.schema, job.config.folder, holds)
    used = job.table.select(needed_columns(job.config, job.table.schema)).to_batches()[0]
    (row,) = mapper.map(RowBatch(0, used, ["r"]))
    assert isinstance(row, MappedRow), row
    return row.engine_input["prompt_token_ids"]
