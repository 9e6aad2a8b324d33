"""The control plane that the tests run on."""

from pathlib import Path

from e2e.cluster.cluster import Cluster, is_whole


def test_a_certificate_that_is_being_written_is_not_used_yet(control_plane: Cluster, tmp_path: Path) -> None:
    written = (control_plane.state / "pki" / "apiserver.crt").read_text()
    certificate = tmp_path / "apiserver.crt"
    assert not is_whole(certificate)

    for seen in ("", written[:-1]):
        certificate.write_text(seen)
        assert not is_whole(certificate)

    certificate.write_text(written)
    assert is_whole(certificate)
