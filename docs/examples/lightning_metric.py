"""Log medseg's Dice after each validation of a Lightning module whose `validation_step` returns its logits."""

import lightning

from medseg.metrics import DiceScore


class ValidationDice(lightning.Callback):
    def __init__(self, num_classes):
        self.dice = DiceScore(num_classes)

    def on_validation_batch_end(self, trainer, module, outputs, batch, *_):
        self.dice.update(outputs, batch["label"])

    def on_validation_epoch_end(self, trainer, module):
        module.log("dice", self.dice.compute())
        self.dice.reset()
