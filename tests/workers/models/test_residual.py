from workers.models.residual import Operand, is_residual, quantized_operands


def operand(*roots: str, fused_with: int | None = None) -> Operand:
    return Operand(frozenset(roots), fused_with)


def test_two_branches_make_a_residual_add() -> None:
    assert is_residual(operand("conv"), operand("input"))


def test_a_gated_branch_beside_its_own_input_makes_a_residual_add() -> None:
    assert is_residual(operand("conv", "gate"), operand("conv"))


def test_functions_of_one_tensor_make_no_residual_add() -> None:
    assert not is_residual(operand("linear"), operand("linear"))


def test_only_the_skip_operand_is_quantized_where_a_layer_makes_the_other() -> None:
    assert quantized_operands(operand("conv", fused_with=4), operand("input")) == (1,)
    assert quantized_operands(operand("input"), operand("conv", fused_with=4)) == (0,)


def test_of_two_layers_the_later_one_is_fused() -> None:
    assert quantized_operands(operand("a", fused_with=4), operand("b", fused_with=7)) == (0,)
    assert quantized_operands(operand("a", fused_with=7), operand("b", fused_with=4)) == (1,)


def test_both_operands_are_quantized_where_no_layer_can_be_fused() -> None:
    assert quantized_operands(operand("relu"), operand("input")) == (0, 1)
