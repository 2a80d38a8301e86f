"""Archives in memory, for tests of readers."""

import io
import zipfile


def zip_bytes(files, compression=zipfile.ZIP_STORED):
    """Return a zip archive of files, given as bytes by their names."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return stream.getvalue()
