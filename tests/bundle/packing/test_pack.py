"""What a packed bundle holds, and what it does not."""

import zipfile


def test_all_that_was_promised_is_in_it(packed):
    with zipfile.ZipFile(packed) as archive:
        names = set(archive.namelist())
        print(sorted(names))
        print(archive.read("unet2d/docs/model_card.md").decode())
        print(archive.read("unet2d/requirements.lock").decode())
        print(archive.read("unet2d/manifest.json").decode())
        print(archive.read("unet2d/configs/train.json").decode()[:1500])
        print(archive.read("unet2d/configs/metadata.json").decode())
    assert 0
