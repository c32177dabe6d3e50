from corrsteer.samples import Sample, group_ids


def test_samples_of_one_group_or_prompt_belong_together():
    samples = [
        Sample("a", "one"),
        Sample("b", "two", group="g"),
        Sample("c", "one"),
        Sample("d", "three", group="g"),
        Sample("e", "four"),
    ]
    assert group_ids(samples) == [0, 1, 0, 1, 2]


def test_a_sample_links_its_group_with_its_prompt():
    samples = [
        Sample("a", "one", group="g"),
        Sample("b", "two", group="h"),
        Sample("c", "one", group="h"),
    ]
    assert group_ids(samples) == [0, 0, 0]


def test_nothing_belongs_together_by_default():
    assert group_ids([Sample(str(i), f"p{i}") for i in range(4)]) == [0, 1, 2, 3]
