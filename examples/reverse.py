"""The smallest use: learn to read numbers backwards from pairs in memory, then answer, score and save."""

from antiphon import Seq2Seq

pairs = [(" ".join(str(number)), " ".join(reversed(str(number)))) for number in range(100, 500)]

model = Seq2Seq(minutes=0.1).fit(pairs)
for source, answer in zip(["1 2 3", "9 8 7"], model.predict(["1 2 3", "9 8 7"]), strict=True):
    print(f"{source}  ->  {answer}")
print(f"exact match: {model.score(pairs, 'exact'):.1f} %")
model.save("reverse.zip")
