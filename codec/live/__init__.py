"""The live link: `lmc send` beside the camera, `lmc receive` in the cloud, QUIC between them.

    identity     who the receiver is, and who may send
    transport    QUIC by aioquic, which nothing else imports: datagrams, and messages on a stream
    sending      a source, its edge sub-model and encoder ─► the session of a sender
    receiving    the sessions of senders ─► decoder, concealment and cloud sub-model ─► results

What is sent when, and what becomes of losses, is decided in `codec.link`.
"""

from importlib.util import find_spec

from codec.errors import LinkError

if find_spec("aioquic") is None:
    raise LinkError("the live link needs aioquic; pip install 'latent-motion-codec[live]'")
