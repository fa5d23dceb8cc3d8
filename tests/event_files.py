"""TensorBoard's files read back, with tensorboardX's own protobuf classes."""


def read_events(path):
    """Scalars of one file: {tag: [(step, value)]}."""
    from tensorboardX.proto import event_pb2

    data, position, out = path.read_bytes(), 0, {}
    while position < len(data):
        length = int.from_bytes(data[position : position + 8], "little")
        event = event_pb2.Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4
        for value in event.summary.value:
            out.setdefault(value.tag, []).append((event.step, value.simple_value))
    return out
