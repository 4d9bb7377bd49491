"""A live link without its sockets: what is sent, when, predicted from what, and what became of it.

Sans-I/O: bytes go in, events and bytes come out, and every call is told the time, in seconds from
any origin.  Frames are opaque here; connections, clocks and codecs are the caller's.  The bytes are
those of bitstreams/LINK.md.

    SenderSession   plans frames before they are computed, packetises, follows the feedback
    Door            lets senders in by their token, and back in by their session
    ReceiverSession reassembles, delivers in decodable order, says what is missing, reports back
"""
