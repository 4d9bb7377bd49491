"""A live link in one file: both ends in one process, over QUIC on this machine.

python -m tools.gallery.live_link bitstreams/clip/big_buck_bunny_64.mp4 OUTPUT.png
"""

import asyncio
import sys
from pathlib import Path
from typing import Any

from codec.encoding.config import EncoderConfig
from codec.live.identity import Identity
from codec.live.page import FrameState, ShownSender
from codec.live.receiving import ReceiveOptions, Receiver
from codec.live.sending import Sender, SendOptions
from codec.pipeline.edge import EdgeSource
from codec.pipeline.options import VideoOptions
from tools.gallery.pictures import drawing
from tools.report.figures import PALETTE

LATENCY, KBIT, REFERENCES = 0.5, 150, 4


async def sent(clip: Path, split: str) -> tuple[ShownSender, list[dict[str, Any]]]:
    """Send a clip at its own pace; return what the receiver made of it, and the results."""
    rows: list[dict[str, Any]] = []
    who, token = Identity.make(), "the same at both ends"
    here = ReceiveOptions(("127.0.0.1", 0), token, LATENCY, finish=True)
    receiver = Receiver(here, who, write=rows.extend)
    address = await receiver.open()
    receiving = asyncio.create_task(receiver.run(over := asyncio.Event()))
    source = EdgeSource(clip, VideoOptions(split=split), references=REFERENCES)
    options = SendOptions(address, who.fingerprint, token, LATENCY, KBIT, REFERENCES)
    await Sender(source, EncoderConfig(qp=20), options).run(asyncio.Event())
    over.set()
    await receiving
    return receiver.status().senders[0], rows


def main(clip: Path, output: Path, split: str = "blocks.10") -> None:
    """Send CLIP to ourselves, and draw what arrived, when, and what it was."""
    sender, rows = asyncio.run(sent(clip, split))
    last = rows[-1]["top5"][0]["label"] if rows else "none"
    print(f"{len(rows)} results, the last of them:", last)
    with drawing(output, [4, 4], 2.4) as (sizes, times):
        for state, colour in ((FrameState.KEY, "orange"), (FrameState.DECODED, "blue")):
            those = {one.number: one.size for one in sender.frames if one.state is state}
            sizes.bar([*those], [*those.values()], color=PALETTE[colour], label=state.value)
        skipped = [one.number for one in sender.frames if one.state is FrameState.SKIPPED]
        sizes.plot(skipped, [0] * len(skipped), "|", color=PALETTE["grey"], label="skipped")
        sizes.set(title=f"bytes that arrived, at most {KBIT} kbit/s", xlabel="frame")
        sizes.legend()
        latencies = {one.number: 1e3 * one.latency for one in sender.frames if one.latency}
        times.plot([*latencies], [*latencies.values()], "o-", color=PALETTE["blue"])
        times.set(title="ms from capture to result", xlabel="frame", ylim=0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
