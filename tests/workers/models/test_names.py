from service.domain.layers import Operation
from workers.models.names import Names


def test_repeated_names_are_counted_from_one() -> None:
    names = Names()
    assert [names.of_unweighted("b.0", Operation.MATMUL) for _ in range(3)] == [
        "b.0.matmul",
        "b.0.matmul_1",
        "b.0.matmul_2",
    ]


def test_the_top_module_adds_no_dot() -> None:
    assert Names().of_unweighted("", Operation.AVERAGE_POOL) == "avg_pool"


def test_a_counted_name_never_meets_a_module_of_that_name() -> None:
    names = Names()
    assert [names.of_weighted(each) for each in ("fc", "fc", "fc_1", "fc")] == ["fc", "fc_1", "fc_1_1", "fc_2"]
