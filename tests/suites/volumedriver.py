"""What every volume driver does. A test module per driver inherits `VolumeDriverSuite` and gives `driver`, without
anything in it; volumes are made without options."""

from __future__ import annotations

from tare.drivers.volumes import VolumeDriver


class VolumeDriverSuite:
    """Inherit, and define the fixture `driver`."""

    def test_content_stays_between_uses(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        path = driver.mount("vol", {}, "a")
        (path / "f").write_text("kept")
        assert driver.unmount("vol", "a")
        driver.create("vol", {})
        assert (driver.mount("vol", {}, "b") / "f").read_text() == "kept"
        assert driver.usage("vol") == 4

    def test_users_are_counted_once_each(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        driver.mount("vol", {}, "a")
        driver.mount("vol", {}, "a")
        assert driver.mount("vol", {}, "b") == driver.path("vol")
        assert driver.users("vol") == {"a", "b"}
        assert driver.unmount("vol", "a")
        assert not driver.unmount("vol", "a")
        assert driver.users("vol") == {"b"}

    def test_users_are_learnt_after_a_restart(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        driver.adopt("vol", {"c"})
        assert driver.users("vol") == {"c"}
        driver.create("idle", {})
        driver.adopt("idle", set())
        assert driver.users("idle") == frozenset()

    def test_staged_content_appears_in_one_step_and_never_replaces_any(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        stage = driver.stage("vol", {})
        if stage is None:
            return  # this driver cannot
        (stage / "f").write_text("new")
        assert driver.commit("vol")
        assert (driver.path("vol") / "f").read_text() == "new"
        stage = driver.stage("vol", {})
        assert stage is not None
        (stage / "f").write_text("late")
        assert not driver.commit("vol")
        assert (driver.path("vol") / "f").read_text() == "new"
        assert not stage.exists()

    def test_what_somebody_has_mounted_is_not_exchanged(self, driver: VolumeDriver) -> None:
        driver.create("busy", {})
        stage = driver.stage("busy", {})
        driver.mount("busy", {}, "a")
        if stage is not None:
            assert not driver.commit("busy")
            assert not stage.exists()
        assert driver.stage("busy", {}) is None

    def test_staged_content_and_content_change_places(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        (driver.mount("vol", {}, "a") / "f").write_text("old")
        driver.unmount("vol", "a")
        stage = driver.stage("vol", {})
        if stage is None:
            return  # this driver cannot
        (stage / "f").write_text("new")
        assert driver.exchange("vol")
        assert ((driver.path("vol") / "f").read_text(), (stage / "f").read_text()) == ("new", "old")
        assert driver.exchange("vol")
        assert (driver.path("vol") / "f").read_text() == "old"
        driver.mount("vol", {}, "a")
        assert not driver.exchange("vol")
        assert (driver.path("vol") / "f").read_text() == "old"

    def test_remove_is_idempotent_and_takes_the_content_along(self, driver: VolumeDriver) -> None:
        driver.create("vol", {})
        (driver.mount("vol", {}, "a") / "f").touch()
        driver.unmount("vol", "a")
        assert list(driver.lost(())) == ["vol"]
        assert driver.lost({"vol"}) == {}
        driver.remove("vol")
        driver.remove("vol")
        assert driver.lost(()) == {}
        driver.create("vol", {})
        assert list(driver.mount("vol", {}, "a").iterdir()) == []
